"""Prepared data: crops of one size in files made for random access; a prepared folder is itself a root."""

from ma2mi_jax.datasets.prepared.store import (
    LATENTS,
    MANIFEST,
    add_latents,
    cached_latents,
    frame_numbers,
    is_prepared,
    read,
    verify,
    write,
)

__all__ = [
    "LATENTS",
    "MANIFEST",
    "add_latents",
    "cached_latents",
    "frame_numbers",
    "is_prepared",
    "read",
    "verify",
    "write",
]
