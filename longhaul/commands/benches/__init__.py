"""`longhaul bench NAME`, one module per group of benchmarks. In the command line's process."""
