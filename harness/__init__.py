"""Runs things and predicts them. Each room says in its first line what is in it and in which process it runs."""
