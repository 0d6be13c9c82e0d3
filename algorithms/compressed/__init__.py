"""Payloads of few bytes: their sizes (any process), codecs, and averages with error feedback (trainer process)."""
