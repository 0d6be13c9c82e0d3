"""Training methods. Plans and memory are computed anywhere without torch; workers run in the trainer process."""
