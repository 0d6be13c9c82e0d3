"""The simulated WAN and cluster: fluid flows and collectives in SimPy, and the closed forms beside them."""
