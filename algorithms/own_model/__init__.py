"""Somebody's own `nn.Module` as a model: its sizes (no torch), and what builds, counts and scores it."""
