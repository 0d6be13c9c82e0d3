"""Networks that stay open without a runner: the holder process, and how others list, use and end them."""
