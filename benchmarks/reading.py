"""Reading pairs: our stream against PyTorch's DataLoader, and how long a step waits for them."""

import contextlib
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import jax

from benchmarks.measure import Built, peak_of_process
from benchmarks.pipeline import CLIPS, in_folder
from ma2mi_jax.clips import pairs
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.datasets import prepared
from ma2mi_jax.datasets.drawn.synthetic import macro_source
from ma2mi_jax.training.pretraining import Config

# That are read in a turn. Two for each core lie ready when it begins, which is then 1/16 of them.
BATCHES = 32 * (os.cpu_count() or 1)
FORMS = ("prepared", "JPEG files")


@contextlib.contextmanager
def drawn(size: int, clips: int = 32) -> Iterator[dict[str, tuple[Clip, ...]]]:
    """The same drawn frames in each of `FORMS`, in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = macro_source(str(folder / "drawn"), clips=clips, size=size, seed=0)
        prepared.write(source, "source", folder / "prepared", size=size)
        packed = prepared.read(folder / "prepared", source.name, "source").clips
        files = tuple(in_folder(clip, folder / "files" / str(i)) for i, clip in enumerate(packed))
        yield dict(zip(FORMS, (packed, files), strict=True))


def many(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """Clips repeated until they are as many as DFEW has, for shuffling costs by epoch."""
    return tuple(clips) * -(-CLIPS // len(clips))


def build(clips: Sequence[Clip], size: int, batch_size: int) -> Built:
    """`BATCHES` batches of our stream, which reads in threads."""
    how = {"image_size": size, "batch_size": batch_size, "seed": 0}
    stream = iter(pairs.pairs(many(clips), **how))
    return Built(lambda: list(itertools.islice(stream, BATCHES)), peak_of_process)


def batches(clips: Sequence[Clip], config: Config) -> Iterator[dict[str, jax.Array]]:
    """What the step of a pre-training in pixels reads, sent ahead to the device."""
    side = config.architecture.image_size
    how = {"image_size": side, "batch_size": config.batch_size, "seed": 0}
    stream = pairs.to_device(pairs.pairs(many(clips), **how), jax.devices()[0])
    return ({"frames": batch["frames"]} for batch in stream)
