"""`longhaul wan` for networks that are open: up, list, down, exec, shell, pcap, set, stats, torchrun."""
