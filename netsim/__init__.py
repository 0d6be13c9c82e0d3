"""The network: its description, its emulation on real nodes, and its simulation. Knows neither torch nor any method."""
