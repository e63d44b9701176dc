"""Floor 6: the training step, the loop around it, and everything that a run leaves behind."""
