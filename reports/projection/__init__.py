"""Tables and figures of a projection."""
