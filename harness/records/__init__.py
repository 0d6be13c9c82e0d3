"""What a run leaves behind, and how it is read. In the runner, the trainer and the command line."""
