"""Films: what each frame shows, as numbers, and the file that it is drawn into.

A `Script` says what the frames of a clip show. Scripts are made by NumPy alone and take no time.
`film` has them drawn by `portrait.py` into one array file, which is kept, so that the next call
finds it there.
"""

import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ma2mi_jax.datasets.drawn.portrait import Identity, Light, Pose, render_frames
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import array_to_fill, discard, fingerprint, sha256, whole

GENERATOR = 4  # raise it with every change that alters a pixel: kept films carry it in their names

# As in real clips (docs/experiments-tiny.md). In 24 of them, at 96 px and δ in [3, 8], the median
# noise is 1.2/255, and the median difference in brightness is .003. Small motions are part of both.
NOISE = 1.25 / 255  # standard deviation of the sensor's
FLICKER = 0.002  # and of a frame's brightness, relative
BATCH = 16  # frames drawn at once: few enough for the cache of a CPU

# Streams of random numbers. No two of them share a number, whatever the seeds.
MACRO, PERSON, MICRO, SENSOR, HELD_OUT = range(5)
KINDS = ("macro", "micro", "truth")  # of films; each has a sensor of its own

Progress = Callable[[int, int], None]


class Script(NamedTuple):
    """What the frames of a clip show."""

    identity: Identity
    units: np.ndarray  # (frames, 17, 2), see `portrait.activation`
    pose: Pose  # of (frames,) arrays
    light: Light  # of (frames,) arrays


def stream(kind: int, index: int, seed: int) -> np.random.Generator:
    """Random numbers of their own for each kind, index and seed."""
    return np.random.default_rng([kind, index, seed])


def sensor(kind: str, seed: int) -> np.random.Generator:
    """The noise of all films of this kind and seed."""
    return stream(SENSOR, KINDS.index(kind), seed)


def film(
    cache: str,
    kind: str,
    parameters: dict[str, Any],
    scripts: Sequence[Script],
    size: int,
    progress: Progress | None,
) -> str:
    """Path of the film: a `.npy` file, uint8 (frames of all scripts, size, size, 3).

    It is drawn if it is not there yet, and it is never there in part.
    """

    def draw(path: os.PathLike) -> None:
        frames = sum(len(script.units) for script in scripts)
        pixels = array_to_fill(path, np.uint8, (frames, size, size, 3))
        noise, done = sensor(kind, parameters["seed"]), 0
        for images in drawings(scripts, size, progress):
            pixels[done : done + len(images)] = photographed(images, noise)
            done += len(images)
        pixels.flush()

    return kept(cache, kind, parameters, size, draw)


def kept(
    cache: str,
    kind: str,
    parameters: dict[str, Any],
    size: int,
    write: Callable[[os.PathLike], None],
) -> str:
    """Path of the `.npy` file of this kind and these parameters; `write` makes it if need be.

    Its checksum lies beside it. If the file is not what was written, it is made again.

    Raises:
      UserError: `cache` cannot be written.
    """
    name = json.dumps([GENERATOR, kind, size, parameters], sort_keys=True)
    path = os.path.abspath(os.path.join(cache, f"{kind}-{fingerprint([name])}.npy"))
    checksum = pathlib.Path(f"{path}.sha256")
    try:
        if os.path.exists(path):
            if not checksum.exists() or checksum.read_bytes() == sha256(path).encode():
                return path
            discard(path, "its content is not what was written")
        os.makedirs(cache, exist_ok=True)
        with whole(path, shared=True) as unfinished:
            write(unfinished)
            with whole(checksum, shared=True) as file:
                file.write_text(sha256(unfinished))
    except OSError as error:
        raise UserError(
            "{cache}: the drawn frames cannot be kept there ({reason}); give another cache folder",
            cache=cache,
            reason=error.strerror or error,
        ) from error
    return path


def drawings(
    scripts: Sequence[Script], size: int, progress: Progress | None
) -> Iterator[np.ndarray]:
    """All frames of all scripts, without noise, a batch at a time.

    Yields:
      (up to BATCH, size, size, 3) float32 in [0, 1].
    """
    clip = np.repeat(np.arange(len(scripts)), [len(script.units) for script in scripts])
    people = jax.tree.map(
        lambda *leaves: np.stack(leaves), *(script.identity for script in scripts)
    )
    units, pose, light = (
        jax.tree.map(
            lambda *leaves: np.concatenate(leaves).astype(np.float32),
            *(getattr(script, part) for script in scripts),
        )
        for part in ("units", "pose", "light")
    )
    for first in range(0, len(clip), BATCH):
        # the last batch is filled up: one shape, one compilation
        rows = np.minimum(np.arange(first, first + BATCH), len(clip) - 1)
        person = jax.tree.map(functools.partial(np.take, indices=clip[rows], axis=0), people)
        others = jax.tree.map(
            functools.partial(np.take, indices=rows, axis=0), (units, pose, light)
        )
        yield np.asarray(render_frames(person, *others, size))[: len(clip) - first]
        if progress is not None:
            progress(min(first + BATCH, len(clip)), len(clip))


def photographed(images: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Float images in [0, 1] as a camera would store them: uint8, with the sensor's noise."""
    seen = images + NOISE * noise.standard_normal(images.shape, np.float32)
    return np.clip(255 * seen + 0.5, 0, 255).astype(np.uint8)


def check_at_least(**numbers: tuple[float, float]) -> None:
    """Passes if each number, given as (value, least), is at least that.

    Raises:
      UserError: one is not.
    """
    for name, (value, least) in numbers.items():
        if not value >= least:
            raise UserError(
                "[{name}={value}]: drawn faces need at least {least}; give that or more",
                name=name,
                value=value,
                least=least,
            )
