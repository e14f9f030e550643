"""Faces drawn by a program: the benchmark that needs no data."""
