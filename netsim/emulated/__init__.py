"""The emulated WAN: nodes, shaping, delay engines, probes and the link gate."""
