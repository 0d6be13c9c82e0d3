"""How numbers, tables and figures look, on every page and in the terminal. Runs in the command line's process."""
