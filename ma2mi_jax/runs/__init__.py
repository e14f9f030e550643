"""A run on the disk: its folder, its log, its checkpoints, and the lock that keeps others out."""
