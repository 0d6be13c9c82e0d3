"""One site as the cost model sees it: its machines, their memory. Pure functions."""
