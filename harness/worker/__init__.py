"""One training process: steps, pacing, checkpoints, model and data. In the trainer."""
