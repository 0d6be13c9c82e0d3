"""One file per method: plan and memory (any process, from sizes alone) and the worker (trainer process)."""
