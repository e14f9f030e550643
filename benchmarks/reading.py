"""Reading pairs: our stream against PyTorch's DataLoader, and how long a step waits for them."""

import contextlib
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.measure import Built, peak_of_process
from benchmarks.pipeline import CLIPS, in_folder
from benchmarks.steps import Input
from ma2mi_jax.clips import pairs
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.datasets import prepared
from ma2mi_jax.datasets.drawn.synthetic import macro_source
from ma2mi_jax.models.architecture import LATENT_CHANNELS, LATENT_SHRINK
from ma2mi_jax.training.pretraining import Config

# That are read in a turn. Two for each core lie ready when it begins, which is then 1/16 of them.
BATCHES = 32 * (os.cpu_count() or 1)
FORMS = ("prepared", "JPEG files")


@contextlib.contextmanager
def drawn(size: int, clips: int = 32) -> Iterator[dict[str, tuple[Clip, ...]]]:
    """The same drawn frames in each of `FORMS`, in a temporary folder.

    The prepared ones have cached latents, which are noise: no autoencoder need be run.
    """
    side, rng = size // LATENT_SHRINK, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = macro_source(str(folder / "drawn"), clips=clips, size=size, seed=0)
        prepared.write(source, "source", folder / "prepared", size=size)
        prepared.add_latents(
            folder / "prepared",
            lambda frames: rng.normal(size=(len(frames), side, side, LATENT_CHANNELS)),
            autoencoder="noise",
            vae="noise",
            batch_size=64,
        )
        packed = prepared.read(folder / "prepared", source.name, "source").clips
        files = tuple(in_folder(clip, folder / "files" / str(i)) for i, clip in enumerate(packed))
        yield dict(zip(FORMS, (packed, files), strict=True))


def many(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """Clips repeated until they are as many as DFEW has, for shuffling costs by epoch."""
    return tuple(clips) * -(-CLIPS // len(clips))


def last_of_turn(stream: Iterator[Any]) -> Any:
    """Reads `BATCHES` batches and returns the last: the memory may not hold all of them."""
    for batch in itertools.islice(stream, BATCHES):
        last = batch
    return last


def build(clips: Sequence[Clip], size: int, batch_size: int) -> Built:
    """`BATCHES` batches of our stream, which reads in threads; it gives the last."""
    how = {"image_size": size, "batch_size": batch_size, "seed": 0}
    stream = iter(pairs.pairs(many(clips), **how))
    return Built(lambda: last_of_turn(stream), peak_of_process)


def batches(clips: Sequence[Clip], given: Input, config: Config) -> Iterator[dict[str, jax.Array]]:
    """What the step of a pre-training reads, sent ahead to the device.

    Args:
      clips: prepared ones, where latents are `given`.
    """
    side, latents = config.architecture.image_size, given == "latents"
    how = {"image_size": side, "batch_size": config.batch_size, "seed": 0, "latents": latents}
    stream = pairs.to_device(pairs.pairs(many(clips), **how), jax.devices()[0])
    names = ("frames", "latents") if latents else ("frames",)
    return ({name: batch[name] for name in names} for batch in stream)
