"""Clips and their frames: what a clip is, pictures from disk, faces, cuts, onset and apex, and
pairs of frames on their way to the device."""
