"""What to run or to project, frozen, without torch. In every process: command line, runner, trainer, planner."""
