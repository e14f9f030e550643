"""The datasets: one reader a file, and `registry.py`, which knows them all by name."""
