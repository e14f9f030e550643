"""Clips and their frames: records, pictures from disk, faces, cuts, and pairs on their way to the device."""
