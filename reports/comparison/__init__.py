"""Two sets of records beside each other: paired differences, and what differs in settings, environment and code."""
