"""A constant of the transport that the cost model shares."""

TICKS = 20  # looks at who is late, per timeout
