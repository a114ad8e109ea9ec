"""Training: losses, schedules, optimisers, one step, checkpoints, and the loop that joins them."""
