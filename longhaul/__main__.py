"""`python -m longhaul`: the command line."""

from longhaul.cli import main

main()
