"""Weights as other programs keep them, in and out, without torch."""
