"""Commands that look at records while they are written, carry them elsewhere, and hold them beside others."""
