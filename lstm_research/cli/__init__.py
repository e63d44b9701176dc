"""Floor 8: the commands of `lstm-research`, one file each."""
