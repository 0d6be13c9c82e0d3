"""A suite while it runs, from its record files: status, page, lines, event files. In the command line's process."""
