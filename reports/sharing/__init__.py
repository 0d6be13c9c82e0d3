"""Archives: records with their report in one file, written, and read anywhere. In the command line's process."""
