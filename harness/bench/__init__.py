"""Our own benchmarks: accuracy of the emulated network, efficiency of the collectives, speed of the code."""
