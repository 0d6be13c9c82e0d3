"""One suite on this host: cells, their worker groups, their results. In the runner."""
