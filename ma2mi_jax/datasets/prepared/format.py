"""What lies in a prepared folder, and how it is read.

  prepared.json               the manifest: clips, classes, notes, repairs, what was set aside, and
                              the size and the checksum of each shard
  frames-00000.array_record   a shard: whole clips, one JPEG file in each record
  frames-00000.json           says that this shard is finished, and what is in it
  latents-00000.npy           the latents of this shard's frames: float16, one row for each record
  latents-00000.json          says that these latents are finished
  latents.json                which autoencoder made the latents, and size and checksum of each file

A shard is written under another name and renamed when it is complete; its `.json` comes last. So
work that was killed goes on with the first shard that is not finished, and a shard that is lost or
damaged can be made again alone. One process at a time works on a folder (`runs/lock.py`).
"""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypedDict

from ma2mi_jax.clips.clip import Clip, Dataset, Repair, SetAside
from ma2mi_jax.clips.frames import StoreFrames
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.datasets.common.reader import Kind
from ma2mi_jax.errors import UserError
from ma2mi_jax.files import fingerprint, plain, read_json, sha256, write_json
from ma2mi_jax.schema import mismatch

Progress = Callable[[int, int], None]

FORMAT = 1  # version of the format: raise it when it changes, and older folders are refused
MANIFEST, LATENTS = "prepared.json", "latents.json"
CHECKSUM = "checksum"  # of a record of the whole folder: of all else in it
MEND = "delete it and prepare the folder again; the shards that are finished are kept"


class Shard(TypedDict):
    """A file, in a record of the whole folder."""

    file: str
    records: int
    bytes: int
    sha256: str


class FramesShard(Shard):
    """The record of a shard of frames, beside it: how many frames each clip has, which others stand
    in for some of them, and which clips have none."""

    counts: list[int]
    replaced: list[tuple[str, int, int]]
    unreadable: list[tuple[str, str]]


class LatentsShard(Shard):
    """The record of a file of latents; `of` is the checksum of the frames."""

    of: str


class MadeBy(TypedDict):
    """What the record of any latents says: the fingerprint of the autoencoder."""

    autoencoder: str


class ClipRecord(TypedDict):
    """A clip in the manifest, beside its CLIP_FIELDS."""

    id: str
    shard: int
    first: int
    count: int
    numbers: list[tuple[int, int]]


CLIP_HINTS = {"subject": str, "label": int, "onset": int, "apex": int, "offset": int}
CLIP_HINTS |= {"fps": float, "action_units": str}
CLIP_FIELDS = tuple(CLIP_HINTS)
"""What the manifest has of a clip, where it differs from the default."""


class Manifest(TypedDict):
    """`prepared.json`."""

    format: int
    name: str
    kind: str
    size: int
    classes: list[str]
    annotations: str
    notes: list[str]
    set_aside: list[dict[str, str]]
    repairs: list[dict[str, str]]
    shards: list[Shard]
    clips: list[ClipRecord]


class Latents(TypedDict):
    """`latents.json`."""

    autoencoder: str
    vae: str
    size: int
    shards: list[LatentsShard]


def is_prepared(root: str | os.PathLike) -> bool:
    """Whether prepared data lie in `root`, and are finished."""
    return os.path.isfile(os.path.join(root, MANIFEST))


def read(root: str | os.PathLike, name: str, kind: Kind) -> Dataset:
    """The prepared dataset in `root`. Only its records are read, no frame.

    Args:
      root: the prepared folder.
      name: the dataset that is asked for; `folder` takes whatever clips there are.
      kind: as what it is asked for.

    Raises:
      UserError: another dataset is there, or a shard is missing or has another size.
    """
    root = pathlib.Path(root).absolute()
    manifest = read_manifest(root)
    if name not in (manifest["name"], "folder") or kind != manifest["kind"]:
        raise UserError(
            "[{kind}={name}]: {root} was prepared from [{of_kind}={of_name}]; give that, or "
            "another [root]",
            kind=kind,
            name=name,
            root=root,
            of_kind=manifest["kind"],
            of_name=manifest["name"],
        )
    check_sizes(root, manifest)
    record = read_latents_record(root)
    if record is not None:
        check_sizes(root, record)

    frames = [str(root / shard["file"]) for shard in manifest["shards"]]
    latents = [""] * len(frames)
    if record is not None:
        latents = [str(root / shard["file"]) for shard in record["shards"]]

    def clip_of(kept: dict[str, Any]) -> Clip:
        shard, first, count = kept["shard"], kept["first"], kept["count"]
        stored = StoreFrames(frames[shard], first, count, latents[shard])
        return Clip(kept["id"], stored, **{key: kept[key] for key in CLIP_FIELDS if key in kept})

    return Dataset(
        manifest["name"],
        tuple(map(clip_of, manifest["clips"])),
        tuple(manifest["classes"]),
        tuple(SetAside(**each) for each in manifest["set_aside"]),
        tuple(manifest["notes"]),
        manifest["annotations"],
        tuple(Repair(**each) for each in manifest["repairs"]),
        manifest.get("detector", ""),  # folders from before 2026-11-29 do not say
    )


def check_content(
    root: str | os.PathLike, cache: str | os.PathLike, progress: Progress | None = None
) -> None:
    """Passes if every file of a prepared folder has the content that was written.

    A file is read when it is first seen, and again when its size or one of its times is another.

    Args:
      root: the prepared folder.
      cache: folder that remembers what was seen.
      progress: called as progress(files done, files in all).

    Raises:
      UserError: a file has another content, or the cache cannot be written.
    """
    root = pathlib.Path(root).absolute()
    record = read_latents_record(root)
    shards = [*read_manifest(root)["shards"], *(record["shards"] if record else ())]
    memory = os.path.join(cache, f"prepared-{disk.key_of([str(root)])}.json")

    def look(shard: Shard) -> list:
        stat = (root / shard["file"]).stat()
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, shard["sha256"]]
        if known.get(shard["file"]) != seen and sha256(root / shard["file"]) != shard["sha256"]:
            raise _changed(root, shard)
        return seen

    with disk.remembered(memory) as known, ThreadPoolExecutor() as pool:
        for done, (shard, seen) in enumerate(zip(shards, pool.map(look, shards), strict=True), 1):
            known[shard["file"]] = seen
            if progress:
                progress(done, len(shards))


def _changed(root: pathlib.Path, shard: Shard) -> UserError:
    return UserError(
        "{path}: its content is not what was written (another sha256); {mend}",
        path=root / shard["file"],
        mend=mend(shard),
    )


def frame_numbers(root: str | os.PathLike) -> dict[str, list[int]]:
    """The number that each frame had in its dataset, by clip id.

    It is the number in the name of the frame's file, or the position where there was no such name.
    """
    clips = read_manifest(pathlib.Path(root))["clips"]
    return {clip["id"]: _numbers(clip) for clip in clips}


def _numbers(clip: dict[str, Any]) -> list[int]:
    return [number for first, count in clip["numbers"] for number in range(first, first + count)]


class Stored(NamedTuple):
    """What the records of prepared folders say about frames that lie there.

    Attributes:
      sha256: of each shard, by its path.
      numbers: of each clip, as `frame_numbers` has them, by the path of its shard and the record of
        its first frame.
    """

    sha256: dict[str, str]
    numbers: dict[tuple[str, int], list[int]]


def stored(clips: Iterable[Clip]) -> Stored:
    """What is recorded of the clips that lie in prepared folders; nothing of the others.

    Raises:
      UserError: the record of such a folder is gone or cannot be read.
    """
    found = Stored({}, {})
    paths = (clip.frames.path for clip in clips if isinstance(clip.frames, StoreFrames))
    for root in dict.fromkeys(pathlib.Path(path).parent for path in paths):
        manifest = read_manifest(root)
        files = [str(root / shard["file"]) for shard in manifest["shards"]]
        for file, shard in zip(files, manifest["shards"], strict=True):
            found.sha256[file] = shard["sha256"]
        for clip in manifest["clips"]:
            found.numbers[files[clip["shard"]], clip["first"]] = _numbers(clip)
    return found


def content_of(clips: Sequence[Clip]) -> str:
    """A short hash of what the frames are of those clips that lie in prepared folders; empty if no
    clip does. Where the folders lie does not count.

    Raises:
      UserError: as for `stored`.
    """
    sha256 = stored(clips).sha256
    content = [
        f"{sha256[clip.frames.path]} {clip.frames.first}\n"
        for clip in clips
        if isinstance(clip.frames, StoreFrames)
    ]
    return fingerprint(content) if content else ""


def verify(root: str | os.PathLike, progress: Progress | None = None) -> list[str]:
    """Reads every file of a prepared folder.

    Args:
      root: the prepared folder.
      progress: called as progress(files done, files in all).

    Returns:
      A line for each file that is missing or has another content than was written, with the way to
      mend it.

    Raises:
      UserError: `root` is no prepared folder.
    """
    root = pathlib.Path(root)
    record = read_latents_record(root)
    shards = [*read_manifest(root)["shards"], *(record["shards"] if record else ())]
    problems = []
    for done, shard in enumerate(shards, 1):
        path = root / shard["file"]
        problem = size_problem(root, shard)
        if not problem and sha256(path) != shard["sha256"]:
            problem = f"{path}: its content is not what was written (another sha256)"
        if problem:
            problems.append(f"{problem}; {mend(shard)}")
        if progress:
            progress(done, len(shards))
    return problems


# ----- records of the whole folder ----------------------------------------------------------------


def read_manifest(root: pathlib.Path) -> dict[str, Any]:
    """The content of `prepared.json`.

    Raises:
      UserError: it is not there, cannot be read, or is of another version of the format.
    """
    if not is_prepared(root):
        raise UserError(
            "{root}: no prepared data there (no {manifest}); make them there by the script "
            "`prepare`",
            root=root,
            manifest=MANIFEST,
        )
    manifest = read_record_file(root / MANIFEST, Manifest)
    if manifest["format"] != FORMAT:
        raise UserError(
            "{root}: prepared in format {found}, but this version reads {expected}; prepare it "
            "again with [overwrite]",
            root=root,
            found=manifest["format"],
            expected=FORMAT,
        )
    if what := _impossible(manifest):
        raise UserError(
            "{file}: not what was written ({what}); {mend}",
            file=root / MANIFEST,
            what=what,
            mend=MEND,
        )
    return manifest


def _impossible(manifest: dict[str, Any]) -> str:
    """What in a manifest cannot be; empty if nothing is."""
    if what := _impossible_file(manifest):
        return what
    ids = set()
    for clip in manifest["clips"]:
        hints = {name: hint for name, hint in CLIP_HINTS.items() if name in clip}
        known = {name: clip[name] for name in hints}
        what = next(filter(None, (mismatch(known[name], hints[name], name) for name in hints)), "")
        if what or (what := _impossible_clip(clip, manifest)):
            return f"clip {clip['id']!r}: {what}"
        if clip["id"] in ids:
            return f"clip {clip['id']!r} stands there twice"
        ids.add(clip["id"])
    return "" if ids else "no clips"


def _impossible_file(record: dict[str, Any]) -> str:
    """What cannot be about the files of a record; they lie beside it, and nowhere else."""
    for shard in record["shards"]:
        name = shard["file"]
        if os.path.basename(name) != name or name in ("", ".", ".."):
            return f"the file {name!r} is no name in this folder"
        if shard["records"] < 0 or shard["bytes"] < 0:
            return f"{name}: a size below 0"
    return ""


def _impossible_clip(clip: dict[str, Any], manifest: dict[str, Any]) -> str:
    shards, count = manifest["shards"], clip["count"]
    if not 0 <= clip["shard"] < len(shards):
        return f"shard {clip['shard']} of {len(shards)}"
    records = shards[clip["shard"]]["records"]
    if clip["first"] < 0 or count < 1 or clip["first"] + count > records:
        return f"frames {clip['first']} to {clip['first'] + count} of {records}"
    if sum(many for _, many in clip["numbers"]) != count or any(n < 0 for _, n in clip["numbers"]):
        return f"the numbers of other than {count} frames"
    if not -1 <= clip.get("label", -1) < len(manifest["classes"]):
        return f"label {clip['label']} of {len(manifest['classes'])} classes"
    for name in ("onset", "apex", "offset"):
        if not -1 <= clip.get(name, -1) < count:
            return f"{name} {clip[name]} of {count} frames"
    if not 0 <= clip.get("fps", 0) < math.inf:
        return f"{clip['fps']} frames per second"
    return ""


def read_latents_record(root: pathlib.Path) -> dict[str, Any] | None:
    """The content of `latents.json`; None if there are no latents."""
    path = root / LATENTS
    if not path.is_file():
        return None
    record = read_record_file(path, Latents)
    if what := _impossible_file(record):
        raise UserError(
            "{file}: not what was written ({what}); {mend}", file=path, what=what, mend=MEND
        )
    return record


def read_record_file(path: pathlib.Path, shape: Any = dict[str, Any]) -> Any:
    """The content of one of the JSON files in a prepared folder, which has this shape.

    Raises:
      UserError: it cannot be read, has another shape, or is not what was written.
    """
    content = read_json(path, MEND, shape)
    # folders from before 2026-11-29 have no checksum
    if isinstance(content, dict) and content.get(CHECKSUM, checksum(content)) != checksum(content):
        raise UserError(
            "{file}: its content is not what was written (another checksum); {mend}",
            file=path,
            mend=MEND,
        )
    return content


def write_record_file(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes the record of the whole folder, with the checksum of its content."""
    content = plain(content)
    write_json(path, content | {CHECKSUM: checksum(content)}, indent=None)


def checksum(record: dict[str, Any]) -> str:
    """The SHA-256 of what a record says, as hexadecimal digits."""
    said = {key: value for key, value in record.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_sizes(root: pathlib.Path, record: dict[str, Any]) -> None:
    """Passes if all files of the manifest, or of the record of the latents, have their sizes.

    Raises:
      UserError: one is missing, or has another size.
    """
    for shard in record["shards"]:
        if problem := size_problem(root, shard):
            raise UserError("{problem}; {mend}", problem=problem, mend=mend(shard))


def size_problem(root: pathlib.Path, shard: dict[str, Any]) -> str:
    """What is wrong with the size of a file; empty if nothing is."""
    path = root / shard["file"]
    try:
        size = path.stat().st_size
    except OSError:
        return f"{path}: this shard is missing"
    if size != shard["bytes"]:
        return f"{path}: this shard has {size} bytes, expected {shard['bytes']}"
    return ""


def mend(shard: dict[str, Any]) -> str:
    """What a person can do about a damaged file."""
    how = "again with its latents" if shard["file"].startswith("latents") else "again"
    return (
        f"delete that file and run the command that prepared the folder {how} (it makes this shard "
        "alone), or copy it again"
    )


# ----- records of one file ------------------------------------------------------------------------


def files(folder: pathlib.Path, *patterns: str) -> list[pathlib.Path]:
    """The files in a folder that match one of the patterns, sorted."""
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def content(part: pathlib.Path) -> dict[str, Any]:
    """What the record of a file says about its content."""
    return {"bytes": part.stat().st_size, "sha256": sha256(part)}


def finish(path: pathlib.Path, record: dict) -> dict:
    """Writes and returns the record that says that a file is complete."""
    record = {"file": path.name, **record}
    write_json(path.with_suffix(".json"), record, indent=None)
    return record


def finished(path: pathlib.Path, identity: dict, shape: Any) -> dict | None:
    """The record of a complete file, None if the file must be made.

    Args:
      path: the file.
      identity: what the record must say; otherwise the file was made of something else.
      shape: of the record, FramesShard or LatentsShard.
    """
    try:
        record = read_json(path.with_suffix(".json"), shape=shape)
    except UserError:  # there is none, or it is damaged
        return None
    same = all(record.get(key) == value for key, value in identity.items())
    return record if same and not size_problem(path.parent, record) else None


def facts(record: dict) -> dict[str, Any]:
    """The part of a file's record that the record of the whole folder repeats."""
    return {key: record[key] for key in ("file", "records", "bytes", "sha256")}
