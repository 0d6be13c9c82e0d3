"""Inside a node: the agent, devices, traffic control, delay engines, probes. In the agent process and its children."""
