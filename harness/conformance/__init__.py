"""The conformance kit: what every method must hold to, ours and anyone's. Runs in the command line, over loopback."""
