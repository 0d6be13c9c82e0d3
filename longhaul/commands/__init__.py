"""The commands of `longhaul`, one module each."""
