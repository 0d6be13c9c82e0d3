"""Predicted time, bytes and memory, and the constants behind them. In the command line (planner)."""
