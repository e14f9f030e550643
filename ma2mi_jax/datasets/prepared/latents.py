"""The autoencoder's latents of all frames of a prepared folder."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.frames import FrameError, StoreFrames, read_frame
from ma2mi_jax.clips.opencv import threads
from ma2mi_jax.datasets.prepared import format
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import array_to_fill, unwritable, whole


def cached_latents(clips: Sequence[Clip], autoencoder: str, image_size: int) -> bool:
    """Whether `clips` have cached latents that may be used in place of the autoencoder.

    Args:
      clips: all of one dataset.
      autoencoder: the fingerprint of its weights.
      image_size: side of the frames of the run, in pixels.

    Raises:
      UserError: there are latents, but made by other weights or from frames of another size.
    """
    frames = clips[0].frames if clips else None
    if not isinstance(frames, StoreFrames) or not frames.latents:
        return False
    root = pathlib.Path(frames.latents).parent
    record = format.read_record_file(root / format.LATENTS, format.Latents)
    if record["size"] != image_size:
        raise UserError(
            "{root}: its latents are of {found}-pixel frames, the run's [preset] has {size}; "
            "prepare a folder with latents of [size={size}] by the script `prepare`, or give "
            "[cached_latents=false]",
            root=root,
            found=record["size"],
            size=image_size,
        )
    if record["autoencoder"] != autoencoder:
        raise UserError(
            "{root}: its latents were made by weights {found} ({vae}), [vae] gives {asked}; "
            "prepare a folder with latents of these by the script `prepare`, or give "
            "[cached_latents=false]",
            root=root,
            found=record["autoencoder"],
            vae=record["vae"],
            asked=autoencoder,
        )
    return True


def add_latents(
    root: str | os.PathLike,
    encode: Callable[[np.ndarray], Any],
    *,
    autoencoder: str,
    vae: str,
    batch_size: int,
    progress: format.Progress | None = None,
) -> None:
    """Puts the latents of all frames into a prepared folder.

    If an earlier call was stopped, this one goes on where that one ended.

    Args:
      root: the prepared folder.
      encode: from uint8 frames (batch_size, size, size, 3) to latents (batch_size, h, w, 4). What
        it returns may still be computed, as jax arrays are: the next batch is read meanwhile.
      autoencoder: the fingerprint of its weights.
      vae: where the weights came from, for people.
      batch_size: frames that are encoded at once.
      progress: called as progress(frames done, frames in all).

    Raises:
      UserError: latents of other weights are there, a latent is not finite, a frame cannot be read,
        or the disk cannot be written.
    """
    root = pathlib.Path(root).absolute()
    manifest = format.read_manifest(root)
    format.check_sizes(root, manifest)
    _refuse_others(root, autoencoder, vae)
    with contextlib.suppress(FileNotFoundError):
        (root / format.LATENTS).unlink()  # until all of them are there again

    total = sum(shard["records"] for shard in manifest["shards"])

    def tell(before: int, count: int) -> None:
        if progress:
            progress(before + count, total)

    done, kept = 0, []
    with threads() as pool:
        for number, shard in enumerate(manifest["shards"]):
            advance = functools.partial(tell, done)
            path = root / f"latents-{number:05d}.npy"
            identity = {"autoencoder": autoencoder, "of": shard["sha256"]}
            record = format.finished(path, identity, format.LatentsShard)
            if record is None:
                record = _add_shard(path, root, shard, identity, encode, batch_size, pool, advance)
            kept.append({**format.facts(record), "of": record["of"]})
            advance(shard["records"])
            done += shard["records"]

    record = {
        "autoencoder": autoencoder,
        "vae": vae,
        "size": manifest["size"],
        "dtype": "float16",
        "shards": kept,
    }
    format.write_record_file(root / format.LATENTS, record)


def _refuse_others(root: pathlib.Path, autoencoder: str, vae: str) -> None:
    """Passes if no latents of other weights are there.

    Raises:
      UserError: some are.
    """
    for path in format.files(root, "latents-*.json"):
        made_by = format.read_record_file(path, format.MadeBy)["autoencoder"]
        if made_by != autoencoder:
            raise UserError(
                "{root}: holds latents of weights {found}, [vae={vae}] gives {asked}; delete its "
                "latents* first",
                root=root,
                found=made_by,
                vae=vae,
                asked=autoencoder,
            )


def _add_shard(
    path: pathlib.Path,
    root: pathlib.Path,
    shard: dict[str, Any],
    identity: dict[str, Any],
    encode: Callable[[np.ndarray], Any],
    batch_size: int,
    pool: Executor,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Makes the file of one shard's latents; returns its record.

    Args:
      path: of the file.
      root: the prepared folder.
      shard: the record of the frames.
      identity: which weights and which frames; it goes into the record.
      encode, batch_size: as for `add_latents`.
      pool: threads that read frames.
      advance: called with the number of frames done.
    """
    frames = StoreFrames(str(root / shard["file"]), 0, shard["records"])
    try:
        with whole(path) as part:
            _encode_frames(part, frames, encode, batch_size, pool, advance)
            content = format.content(part)
    except FrameError as error:
        raise UserError("{error}; {mend}", error=error, mend=format.mend(shard)) from error
    except OSError as error:
        raise unwritable(path, error) from error
    return format.finish(path, {**content, **identity, "records": shard["records"]})


def _encode_frames(
    path: pathlib.Path,
    frames: StoreFrames,
    encode: Callable[[np.ndarray], Any],
    batch_size: int,
    pool: Executor,
    advance: Callable[[int], None],
) -> None:
    """Writes the latents of `frames` into a `.npy` file, float16 (frames, h, w, 4).

    A batch is read while the one before it is encoded. Of no frames, h and w are 0.
    """
    count, rows = len(frames), None
    if not count:  # no frame of its clips could be read
        with path.open("wb") as file:
            np.save(file, np.empty((0, 0, 0, 4), np.float16))
        return

    pending = None  # first frame and latents of the batch that is being encoded
    for first in [*range(0, count, batch_size), None]:  # None: nothing is left to read
        if first is not None:
            # the last batch is filled up: one shape, one compilation
            wanted = np.minimum(np.arange(first, first + batch_size), count - 1)
            batch = np.stack(list(pool.map(lambda i: read_frame(frames, int(i)), wanted)))

        if pending is not None:
            start, latents = pending[0], np.asarray(pending[1]).astype(np.float16)
            if not np.isfinite(latents).all():
                raise UserError(
                    "[vae]: of frames {first} to {last} of {shard} the autoencoder gives latents "
                    "that are not finite, or that no float16 holds; give the weights "
                    "of a Stable Diffusion VAE",
                    first=start,
                    last=min(start + batch_size, count) - 1,
                    shard=frames.path,
                )
            if rows is None:
                shape = (count, *latents.shape[1:])
                rows = array_to_fill(path, np.float16, shape)
            rows[start : start + batch_size] = latents[: count - start]
            advance(min(start + batch_size, count))

        pending = None if first is None else (first, encode(batch))
    rows.flush()
