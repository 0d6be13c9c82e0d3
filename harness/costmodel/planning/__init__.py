"""What planners ask, answered from the same model as the rows. Runs in the command line."""
