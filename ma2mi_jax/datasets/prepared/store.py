"""Prepared data: every frame cropped, resized and kept as JPEG in ArrayRecord files, with all that is known of the clips beside them.

A prepared folder is itself a `--data-root`:

  prepared.json               the manifest: clips, classes, notes, repairs, what was set aside, and each shard's size and checksum
  frames-00000.array_record   whole clips, a JPEG file a record          frames-00000.json    that this shard is done, and what is in it
  latents-00000.npy           float16, a row a record                    latents-00000.json   the same of the latents
  latents.json                which autoencoder made the latents, and each file's size and checksum

A shard is written under another name and renamed when it is whole, and its `.json` comes last. So work that was killed goes on with the
first shard that is not done, and a shard that is lost or damaged is made again alone. One process at a time works on a folder (`lock`).
"""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal

import numpy as np

from ma2mi_jax.clips.clip import Clip, Dataset, Repair, SetAside
from ma2mi_jax.clips.frames import (
    JPEG_QUALITY,
    FrameError,
    ImageFolder,
    StoreFrames,
    crop,
    frame_number,
    jpeg,
    read_frame,
    read_record,
)
from ma2mi_jax.clips.opencv import threads
from ma2mi_jax.clips.pairs import read_nearest
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import fingerprint, read_json, sha256, whole, write_json

Kind = Literal["source", "target"]
Progress = Callable[[int, int], None]

FORMAT = 1  # of what is written here: raise it when it changes, and old folders are refused
MANIFEST, LATENTS = "prepared.json", "latents.json"
SHARD = 8192  # frames at most in a shard, unless one clip has more: about 200 MB
SHARDS = 64  # at least that many, as long as they are not of fewer than `LEAST` frames: they are what is done in parallel
LEAST = 256
STAND_IN = "a frame that could not be read was replaced by the nearest readable one when the data were prepared"
_CLIP_FIELDS = ("subject", "label", "onset", "apex", "offset", "fps", "action_units")


# ------------------------------------------------------------------------------------------------------------------- reading


def is_prepared(root: str | os.PathLike) -> bool:
    """Whether `root` is a folder that `write` finished."""
    return os.path.isfile(os.path.join(root, MANIFEST))


def read(root: str | os.PathLike, name: str, kind: Kind) -> Dataset:
    """The prepared dataset under `root`; no frame is touched.

    Args:
      name: the dataset that is asked for; `folder` takes whatever clips there are.
      kind: what it is asked for as.

    Raises:
      UserError: another dataset is there, or a shard is missing or not of its size.
    """
    root = pathlib.Path(root).absolute()
    manifest = _manifest(root)
    if (name not in (manifest["name"], "folder")) or kind != manifest["kind"]:
        raise UserError(
            f"--{kind}={name}: {root} was prepared from --{manifest['kind']}={manifest['name']}; give that, or another --data-root=FOLDER"
        )
    _check_sizes(root, manifest)
    record = _latents_record(root)
    if record is not None:
        _check_sizes(root, record)
    frames = [str(root / shard["file"]) for shard in manifest["shards"]]
    latents = (
        [str(root / shard["file"]) for shard in record["shards"]] if record else [""] * len(frames)
    )
    clips = tuple(
        Clip(
            clip["id"],
            StoreFrames(
                frames[clip["shard"]], clip["first"], clip["count"], latents[clip["shard"]]
            ),
            **{field: clip[field] for field in _CLIP_FIELDS if field in clip},
        )
        for clip in manifest["clips"]
    )
    return Dataset(
        manifest["name"],
        clips,
        tuple(manifest["classes"]),
        tuple(SetAside(**each) for each in manifest["set_aside"]),
        tuple(manifest["notes"]),
        manifest["annotations"],
        tuple(Repair(**each) for each in manifest["repairs"]),
    )


def frame_numbers(root: str | os.PathLike) -> dict[str, list[int]]:
    """By clip id: the number that each frame had in the dataset, by its file's name, or its position where it had none."""
    return {
        clip["id"]: [
            number for first, count in clip["numbers"] for number in range(first, first + count)
        ]
        for clip in _manifest(pathlib.Path(root))["clips"]
    }


def cached_latents(clips: Sequence[Clip], autoencoder: str, image_size: int) -> bool:
    """Whether `clips`, all of one source, have cached latents that may stand for those of the autoencoder of this fingerprint.

    Raises:
      UserError: they have some, but made by other weights or from frames of another size.
    """
    frames = clips[0].frames if clips else None
    if not isinstance(frames, StoreFrames) or not frames.latents:
        return False
    root = pathlib.Path(frames.latents).parent
    record = _read_json(root / LATENTS)
    ways_out = f"prepare a folder with these by experiments/prepare.py --latents --size={image_size}, or give --cached-latents=false"
    if record["size"] != image_size:
        raise UserError(
            f"{root}: its latents are of {record['size']}-pixel frames, the run's --preset has {image_size}; {ways_out}"
        )
    if record["autoencoder"] != autoencoder:
        raise UserError(
            f"{root}: its latents were made by weights {record['autoencoder']} ({record['vae']}), --vae gives {autoencoder}; {ways_out}"
        )
    return True


def verify(root: str | os.PathLike, progress: Progress | None = None) -> list[str]:
    """Reads every file of a prepared folder; a line for each that is missing, or is not what was written, with the way to mend it.

    Raises:
      UserError: `root` is no prepared folder.
    """
    root = pathlib.Path(root)
    record = _latents_record(root)
    shards = [*_manifest(root)["shards"], *(record["shards"] if record else ())]
    problems = []
    for done, shard in enumerate(shards, 1):
        problem = _size_problem(root, shard)
        if not problem and sha256(root / shard["file"]) != shard["sha256"]:
            problem = (
                f"{root / shard['file']}: its content is not what was written (another sha256)"
            )
        if problem:
            problems.append(f"{problem}; {_mend(shard)}")
        if progress:
            progress(done, len(shards))
    return problems


def _manifest(root: pathlib.Path) -> dict[str, Any]:
    if not is_prepared(root):
        raise UserError(
            f"{root}: no prepared data there (no {MANIFEST}); make them by experiments/prepare.py --out={root}"
        )
    manifest = _read_json(root / MANIFEST)
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{root}: prepared in format {manifest['format']}, this version reads {FORMAT}; prepare it again with --overwrite"
        )
    return manifest


def _latents_record(root: pathlib.Path) -> dict[str, Any] | None:
    return _read_json(root / LATENTS) if (root / LATENTS).is_file() else None


def _check_sizes(root: pathlib.Path, record: dict[str, Any]) -> None:
    for shard in record["shards"]:
        if problem := _size_problem(root, shard):
            raise UserError(f"{problem}; {_mend(shard)}")


def _size_problem(root: pathlib.Path, shard: dict[str, Any]) -> str:
    path = root / shard["file"]
    try:
        size = path.stat().st_size
    except OSError:
        return f"{path}: this shard is missing"
    return (
        ""
        if size == shard["bytes"]
        else f"{path}: this shard has {size} bytes, expected {shard['bytes']}"
    )


def _mend(shard: dict[str, Any]) -> str:
    how = "with --latents " if shard["file"].startswith("latents") else ""
    return f"delete that file and run the command that prepared the folder again {how}(it makes this shard alone), or copy it again"


# ------------------------------------------------------------------------------------------------------------------- writing


def write(
    source: Dataset,
    kind: Kind,
    out: str | os.PathLike,
    *,
    size: int = 256,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Prepares `source` into the folder `out`; goes on where an earlier call for the same frames was stopped.

    A frame becomes the crop `Clip.box` of size × size. A JPEG file that is that already is kept byte by byte. A frame that cannot be
    read is replaced by the nearest readable one of its clip and noted as a repair; a clip with none is set aside.

    Args:
      kind: whether the clips are pre-training's or fine-tuning's.
      workers: threads; None is one for each core.
      overwrite: prepared data in `out`, of whatever dataset, may be deleted.
      progress: called as progress(frames done, frames in all), from any thread.

    Raises:
      UserError: `out` holds something else, or cannot be written.
    """
    out = pathlib.Path(out).absolute()
    identity = {"format": FORMAT, "kind": kind, "name": source.name, "size": size}
    _claim(out, identity, overwrite)
    plan = list(_plan(source.clips))
    for stale in _files(out, "frames-*", "latents-*"):
        if int(stale.name.split("-")[1].split(".")[0]) >= len(plan):
            stale.unlink()
    done, total, lock, stop = (
        0,
        sum(len(clip.frames) for clip in source.clips),
        threading.Lock(),
        threading.Event(),
    )

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress:
                progress(done, total)

    def shard(number: int) -> dict[str, Any]:
        clips = [source.clips[i] for i in plan[number]]
        try:
            return _shard(out, number, clips, identity, advance, stop)
        except (OSError, RuntimeError) as error:  # the container's own errors are RuntimeErrors
            reason = getattr(error, "strerror", None) or str(error).split(";")[0]
            raise UserError(
                f"{out}: shard {number} cannot be written ({reason}); free the disk, or give another --out"
            ) from error

    with threads(workers, stop) as pool:
        futures = [pool.submit(shard, number) for number in range(len(plan))]
        for future in as_completed(futures):
            future.result()
    shards = [future.result() for future in futures]
    if (latents := _latents_record(out)) and [each["of"] for each in latents["shards"]] != [
        shard["sha256"] for shard in shards
    ]:
        (out / LATENTS).unlink()  # they are of other frames
    write_json(out / MANIFEST, _manifest_of(source, identity, plan, shards), indent=None)


def add_latents(
    root: str | os.PathLike,
    encode: Callable[[np.ndarray], Any],
    *,
    autoencoder: str,
    vae: str,
    batch_size: int,
    progress: Progress | None = None,
) -> None:
    """Puts the latents of all frames beside the frames of a prepared folder; goes on where an earlier call was stopped.

    Args:
      encode: from uint8 frames (batch_size, size, size, 3) to latents (batch_size, h, w, 4). What it returns may still be in the making,
        as jax arrays are: the next batch is read meanwhile.
      autoencoder: the fingerprint of its weights.
      vae: where they came from, for people.
      progress: called as progress(frames done, frames in all).

    Raises:
      UserError: latents of other weights are there, a latent is not finite, a frame cannot be read, or the disk cannot be written.
    """
    root = pathlib.Path(root).absolute()
    manifest = _manifest(root)
    _check_sizes(root, manifest)
    done, total, files = 0, sum(shard["records"] for shard in manifest["shards"]), []
    for sidecar in _files(root, "latents-*.json"):
        if (made_by := _read_json(sidecar)["autoencoder"]) != autoencoder:
            raise UserError(
                f"{root}: holds latents of weights {made_by}, --vae={vae} gives {autoencoder}; delete its latents* first"
            )
    with contextlib.suppress(FileNotFoundError):
        (root / LATENTS).unlink()  # until all are there again
    with threads() as pool:
        for number, shard in enumerate(manifest["shards"]):
            path = root / f"latents-{number:05d}.npy"
            kept = _done(path, {"autoencoder": autoencoder, "of": shard["sha256"]})
            if kept is None:
                frames = StoreFrames(str(root / shard["file"]), 0, shard["records"])
                try:
                    with whole(path) as part:
                        _encode_shard(
                            part,
                            frames,
                            encode,
                            batch_size,
                            pool,
                            lambda n, done=done: progress and progress(done + n, total),
                        )
                        content = _content(part)
                except FrameError as error:
                    raise UserError(f"{error}; {_mend(shard)}") from error
                except OSError as error:
                    raise UserError(
                        f"{path}: cannot be written ({error.strerror}); free the disk"
                    ) from error
                kept = _finish(
                    path,
                    {
                        **content,
                        "autoencoder": autoencoder,
                        "of": shard["sha256"],
                        "records": shard["records"],
                    },
                )
            files.append({**_facts(kept), "of": kept["of"]})
            done += shard["records"]
            if progress:
                progress(done, total)
    write_json(
        root / LATENTS,
        {
            "autoencoder": autoencoder,
            "vae": vae,
            "size": manifest["size"],
            "dtype": "float16",
            "shards": files,
        },
        indent=None,
    )


def _encode_shard(
    path: pathlib.Path,
    frames: StoreFrames,
    encode,
    batch_size: int,
    pool: ThreadPoolExecutor,
    advance,
) -> None:
    """The latents of `frames` in a `.npy` file: a batch is read while the one before it is encoded."""
    rows, pending = None, None
    for first in [*range(0, len(frames), batch_size), None]:
        if first is not None:
            wanted = np.minimum(
                np.arange(first, first + batch_size), len(frames) - 1
            )  # the last is filled up: one shape, one compilation
            batch = np.stack(list(pool.map(lambda i: read_frame(frames, int(i)), wanted)))
        if pending is not None:
            start, z = pending[0], np.asarray(pending[1]).astype(np.float16)
            if not np.isfinite(z).all():
                raise UserError(
                    "the autoencoder gives latents that no float16 holds: are these the weights of a Stable-Diffusion VAE?"
                )
            if rows is None:
                rows = np.lib.format.open_memmap(
                    path, mode="w+", dtype=np.float16, shape=(len(frames), *z.shape[1:])
                )
            rows[start : start + batch_size] = z[: len(frames) - start]
            advance(min(start + batch_size, len(frames)))
        pending = None if first is None else (first, encode(batch))
    rows.flush()


def _plan(clips: Sequence[Clip]) -> Iterator[range]:
    """Runs of clips, each a shard. It depends on the clips alone, so that a run that was killed finds its shards again."""
    total = sum(len(clip.frames) for clip in clips)
    most = min(SHARD, max(LEAST, -(-total // SHARDS)))
    first, held = 0, 0
    for i, clip in enumerate(clips):
        if held and held + len(clip.frames) > most:
            yield range(first, i)
            first, held = i, 0
        held += len(clip.frames)
    if clips:
        yield range(first, len(clips))


def _shard(
    out: pathlib.Path,
    number: int,
    clips: Sequence[Clip],
    identity: dict,
    advance,
    stop: threading.Event,
) -> dict[str, Any]:
    """Makes a shard unless it is there; returns its record, in which `counts` has the frames of each clip, 0 if none could be read."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    path = out / f"frames-{number:05d}.array_record"
    made_of = [
        [
            c.id,
            c.box and dataclasses.astuple(c.box),
            c.frames.names if isinstance(c.frames, ImageFolder) else len(c.frames),
        ]
        for c in clips
    ]
    identity = identity | {"of": fingerprint([json.dumps([JPEG_QUALITY, made_of])], 64)}
    frames = sum(len(clip.frames) for clip in clips)
    if (kept := _done(path, identity)) is not None:
        advance(frames)
        return kept
    (out / MANIFEST).unlink(
        missing_ok=True
    )  # it holds no more; nobody reads what is half of the old and half of the new
    counts, replaced, unreadable = [], [], []
    with whole(path) as part:
        # a record alone can be read; JPEG is compressed already
        writer = ArrayRecordWriter(str(part), "group_size:1,uncompressed")
        try:
            for clip in clips:
                if stop.is_set():  # nobody reads it: another shard's error, or Ctrl-C, comes first
                    raise UserError("stopped")
                try:
                    files = [
                        _jpeg(clip, position, identity["size"])
                        for position in range(len(clip.frames))
                    ]
                except FrameError as error:
                    files = []
                    unreadable.append([clip.id, str(error).removeprefix(f"{clip.id}: ")])
                for position, (found, file) in enumerate(files):
                    writer.write(file)
                    if found != position:
                        replaced.append([clip.id, position, found])
                counts.append(len(files))
                advance(len(clip.frames))
        finally:
            writer.close()
        if (there := ArrayRecordReader(str(part)).num_records()) != sum(counts):
            raise OSError(None, f"{there} of {sum(counts)} records arrived")
        content = _content(part)
    return _finish(
        path,
        content
        | identity
        | {
            "records": sum(counts),
            "counts": counts,
            "replaced": replaced,
            "unreadable": unreadable,
        },
    )


def _jpeg(clip: Clip, position: int, size: int) -> tuple[int, bytes]:
    """The readable frame nearest to `position`: where it is, and its crop as a JPEG file.

    Raises:
      FrameError: no frame of the clip can be read.
    """
    try:
        image = read_frame(clip.frames, position)
        if (
            clip.box is None
            and image.shape[:2] == (size, size)
            and (file := _file(clip.frames, position)).startswith(b"\xff\xd8")
        ):
            return position, file
        image = crop(image, clip.box, size)
    except (FrameError, OSError):
        found, _ = read_nearest(clip, position, size)
        return found, _jpeg(clip, found, size)[1]  # the very file of that frame
    return position, jpeg(image)


def _file(frames, position: int) -> bytes:
    """The file of a frame as it is stored, empty where there is none."""
    if isinstance(frames, StoreFrames):
        return read_record(frames, position)
    if isinstance(frames, ImageFolder):
        return pathlib.Path(frames.folder, frames.names[position]).read_bytes()
    return b""


def _manifest_of(
    source: Dataset, identity: dict, plan: Sequence[range], shards: Sequence[dict]
) -> dict[str, Any]:
    clips, set_aside, repairs = [], list(source.set_aside), list(source.repairs)
    for number, (indices, shard) in enumerate(zip(plan, shards, strict=True)):
        firsts = itertools.accumulate(shard["counts"], initial=0)
        reasons = dict(shard["unreadable"])
        for i, first, count in zip(
            indices, firsts, shard["counts"], strict=False
        ):  # the last of `firsts` is the end
            clip = source.clips[i]
            if not count:
                set_aside.append(SetAside(clip.id, reasons[clip.id]))
                continue
            known = {
                f.name: getattr(clip, f.name)
                for f in dataclasses.fields(Clip)
                if f.name in _CLIP_FIELDS
            }
            told = {
                f.name: known[f.name]
                for f in dataclasses.fields(Clip)
                if f.name in known and known[f.name] != f.default
            }
            clips.append(
                {
                    "id": clip.id,
                    "shard": number,
                    "first": first,
                    "count": count,
                    "numbers": _runs(_numbers(clip)),
                    **told,
                }
            )
        repairs += [
            Repair(name, STAND_IN, f"frame {position} shows frame {by}")
            for name, position, by in shard["replaced"]
        ]
    replaced = sum(len(shard["replaced"]) for shard in shards)
    notes = [*source.notes, *([f"{STAND_IN}: {replaced}"] if replaced else [])]
    if not clips:
        raise UserError(
            f"{source.name}: not one of its {len(source.clips)} clips has a readable frame; check that the disk is there"
        )
    return {
        **identity,
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("opencv-python-headless", "array_record", "numpy")
        },
        "quality": JPEG_QUALITY,
        "classes": source.classes,
        "annotations": source.annotations,
        "counts": {
            "clips": len(clips),
            "frames": sum(c["count"] for c in clips),
            "set_aside": len(set_aside),
            "frames_replaced": replaced,
        },
        "notes": notes,
        "set_aside": [
            dataclasses.asdict(each) for each in sorted(set_aside, key=lambda each: each.id)
        ],
        "repairs": [dataclasses.asdict(each) for each in repairs],
        "shards": [_facts(shard) for shard in shards],
        "clips": clips,
    }


def _numbers(clip: Clip) -> list[int]:
    names = clip.frames.names if isinstance(clip.frames, ImageFolder) else [""] * len(clip.frames)
    return [
        position if (number := frame_number(name)) is None else number
        for position, name in enumerate(names)
    ]


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """[46, 47, 48, 60] → [(46, 3), (60, 1)]."""
    runs = []
    for number in numbers:
        if runs and number == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number, 1))
    return runs


# --------------------------------------------------------------------------------------------------------------------- files


def _claim(out: pathlib.Path, identity: dict, overwrite: bool) -> None:
    """Makes the folder, or makes sure that what is in it may be gone on with."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        there = next(
            iter([p for p in (out / MANIFEST,) if p.is_file()] or _files(out, "frames-*.json")),
            None,
        )
        if there is None:
            strangers = [p.name for p in out.iterdir() if not p.name.endswith(".part")]
            if strangers:
                raise UserError(
                    f"--out={out}: holds {strangers[0]} and no prepared data; give a new or empty folder"
                )
        elif overwrite:
            for file in [out / MANIFEST, out / LATENTS, *_files(out, "frames-*", "latents-*")]:
                file.unlink(missing_ok=True)
        else:
            found = _read_json(there)
            different = [
                f"{key} {found.get(key)} there, {value} asked"
                for key, value in identity.items()
                if found.get(key) != value
            ]
            if different:
                raise UserError(
                    f"--out={out}: other prepared data are there ({', '.join(different)}); give another folder or --overwrite"
                )
    except OSError as error:
        raise UserError(
            f"--out={out}: cannot be written ({error.strerror}); give another folder"
        ) from error


def _files(folder: pathlib.Path, *patterns: str) -> list[pathlib.Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _content(part: pathlib.Path) -> dict[str, Any]:
    """What the record of a file says about its content."""
    return {"bytes": part.stat().st_size, "sha256": sha256(part)}


def _finish(path: pathlib.Path, record: dict) -> dict:
    """Writes the record that says that the file is complete."""
    record = {"file": path.name, **record}
    write_json(path.with_suffix(".json"), record, indent=None)
    return record


def _done(path: pathlib.Path, identity: dict) -> dict | None:
    """The record of a file that was finished for the same purpose and still has its size."""
    try:
        record = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return None
    same = all(record.get(key) == value for key, value in identity.items())
    return record if same and not _size_problem(path.parent, record) else None


def _facts(record: dict) -> dict[str, Any]:
    return {key: record[key] for key in ("file", "records", "bytes", "sha256")}


def _read_json(path: pathlib.Path) -> Any:
    return read_json(
        path, "delete it and prepare the folder again; the shards that are finished are kept"
    )
