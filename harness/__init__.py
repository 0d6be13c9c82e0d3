"""Runs things: command line, suites, runner, node agent, trainer, WAN collectives, records, calibration, projection."""
