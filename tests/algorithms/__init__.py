"""The methods: exactness, bytes, memory, trajectories."""
