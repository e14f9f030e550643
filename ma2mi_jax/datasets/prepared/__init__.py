"""Prepared data: crops of one size, in files made for random access, with all that is known of the
clips beside them. A prepared folder is itself a root.

`format.py` says what lies in such a folder and reads it. `write.py` makes the frames, `latents.py`
the autoencoder's latents of them.
"""

from ma2mi_jax.datasets.prepared.format import (
    LATENTS,
    MANIFEST,
    check_content,
    content_of,
    frame_numbers,
    is_prepared,
    read,
    verify,
)
from ma2mi_jax.datasets.prepared.latents import add_latents, cached_latents
from ma2mi_jax.datasets.prepared.write import write

__all__ = [
    "LATENTS",
    "MANIFEST",
    "add_latents",
    "cached_latents",
    "check_content",
    "content_of",
    "frame_numbers",
    "is_prepared",
    "read",
    "verify",
    "write",
]
