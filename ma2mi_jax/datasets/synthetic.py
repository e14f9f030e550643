"""Drawn faces, as a source and as a target: the datasets that need no download.

`drawn/synthetic.py` draws them. It is imported only when it is asked for, because it computes with
jax, and reading any other dataset does not.
"""

from collections.abc import Callable

from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common.reader import Reader


def read_source(
    root: str,
    *,
    cache: str,
    size: int,
    clips: int,
    speech: float,
    data_seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Clips of macro-expressions; `root` is not used. See `drawn.synthetic.macro_source`."""
    from ma2mi_jax.datasets.drawn import synthetic

    return synthetic.macro_source(
        cache, clips=clips, size=size, seed=data_seed, speech=speech, progress=progress
    )


def read_target(
    root: str,
    *,
    cache: str,
    size: int,
    subjects: int,
    clips_per_subject: int,
    amplitude: float,
    data_seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Pairs of micro-expressions; `root` is not used. See `drawn.synthetic.micro_source`."""
    from ma2mi_jax.datasets.drawn import synthetic

    return synthetic.micro_source(
        cache,
        subjects=subjects,
        clips_per_subject=clips_per_subject,
        size=size,
        seed=data_seed,
        amplitude=amplitude,
        progress=progress,
    )


SOURCE = Reader(
    "synthetic",
    "Drawn faces",
    kind="source",
    read=read_source,
    takes=("clips", "speech", "data_seed"),
    wrong_labels=0.15,
    drawn=True,
)
TARGET = Reader(
    "synthetic",
    "Drawn faces",
    kind="target",
    read=read_target,
    takes=("subjects", "clips_per_subject", "amplitude", "data_seed"),
    drawn=True,
)
