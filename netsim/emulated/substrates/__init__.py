"""What nodes are made of: containers, network namespaces, or sites that compose started. In the runner."""
