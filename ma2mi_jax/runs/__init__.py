"""A run on the disk: its folder, what it logs, its checkpoints, and that one process writes it."""
