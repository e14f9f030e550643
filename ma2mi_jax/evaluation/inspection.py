"""What a reader made of a dataset, as blocks of a page: counts, notes, lengths, irregular rows, and
pictures of what the network will see."""

import collections
import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np

from ma2mi_jax import files
from ma2mi_jax.clips import frames, video
from ma2mi_jax.clips.clip import Clip, Dataset
from ma2mi_jax.clips.frames import Box, FrameError, ImageFolder
from ma2mi_jax.clips.pairs import read_nearest
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.common import extract
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import cautions, drawing
from ma2mi_jax.evaluation.blocks import Block, Heading, Items, Picture, Table, Text
from ma2mi_jax.files import printable
from ma2mi_jax.training import finetuning_run, folds

SHOWN = 12  # clips in pictures, rows in a table of irregularities
BINS = 10  # of the histogram, at most
BAR = 20  # characters of its longest bar
GREEN = (0, 200, 0)  # of the line around what is cropped


def content(spec: DatasetSpec, dataset: Dataset, out: pathlib.Path, size: int) -> list[Block]:
    """The page of a dataset, whose pictures and list of irregular rows are written into `out`.

    Args:
      spec: what was asked for.
      dataset: what was read.
      size: side of the crops that are shown, in pixels.
    """
    blocks: list[Block] = [*counts(spec, dataset), *classes(dataset)]
    if spec.kind == "target":
        blocks += subjects(spec, dataset)
    blocks += lengths(dataset.clips)
    blocks += irregular(out, dataset)

    repaired = {repair.id for repair in dataset.repairs}
    mended = [clip for clip in dataset.clips if clip.id in repaired]
    blocks += pictures("Clips", "clips", dataset.clips, dataset.classes, out, size)
    blocks += pictures("Clips with a repair", "repaired", mended, dataset.classes, out, size)
    return blocks


def without_folder(dataset: Dataset, root: pathlib.Path) -> Dataset:
    """`dataset` with no path of the folder `root` in what it tells; it is of no use elsewhere."""

    def told(text: str) -> str:
        for path in (root.resolve(), root.absolute()):
            text = text.replace(f"{path}{os.sep}", "").replace(str(path), root.resolve().name)
        return text

    return dataclasses.replace(
        dataset,
        notes=tuple(map(told, dataset.notes)),
        set_aside=tuple(
            dataclasses.replace(each, reason=told(each.reason)) for each in dataset.set_aside
        ),
        repairs=tuple(dataclasses.replace(each, what=told(each.what)) for each in dataset.repairs),
    )


# ----- tables -------------------------------------------------------------------------------------


def counts(spec: DatasetSpec, dataset: Dataset) -> list[Block]:
    """How much there is, where it comes from, and what the reader has to tell."""
    clips = dataset.clips
    people = len({clip.subject for clip in clips} - {""})
    tallied = _tally(clip.fps for clip in clips)
    rates = ", ".join(f"{n} at {fps:g}" if fps else f"{n} unknown" for fps, n in tallied)
    rows = [
        ("clips", len(clips)),
        ("published", registry.reader(spec.kind, spec.name).published or "unknown"),
        ("frames", sum(len(clip.frames) for clip in clips)),
        ("set aside", len(dataset.set_aside)),
        ("repairs", len(dataset.repairs)),
        ("classes", len(dataset.classes) or "none"),
        ("annotations", dataset.annotations or "none"),
        ("subjects", people or "unknown"),
        ("frames per second", rates),
        ("face crop", ", ".join(f"{n} {how}" for how, n in _tally(map(cropped, clips)))),
        ("face detector", dataset.detector or "not used"),
    ]
    blocks: list[Block] = [Heading("Counts"), _table(("", ""), rows)]
    if spec.kind == "target" and (told := cautions.few_subjects(people)):
        blocks.append(Text(told))
    if dataset.notes:
        blocks += [Heading("Notes of the reader"), Items(dataset.notes)]
    return blocks


def cropped(clip: Clip) -> str:
    """How a clip's frames were cropped to the face."""
    if clip.box:
        return "by one box a clip"
    origin = extract.origin(clip)
    return "taken whole" if origin is None or origin.box is None else "cropped from their videos"


def classes(dataset: Dataset) -> list[Block]:
    """How many clips, and of how many subjects, each class has."""
    if not dataset.classes:
        return []
    rows = []
    for label, name in _labels(dataset).items():
        inside = [clip for clip in dataset.clips if clip.label == label]
        share = f"{len(inside) / len(dataset.clips):.1%}"
        rows.append((name, len(inside), share, len({clip.subject for clip in inside})))
    known = 4 if any(clip.subject for clip in dataset.clips) else 3
    columns = ("class", "clips", "share", "subjects")[:known]
    return [Heading("Clips per class"), _table(columns, [row[:known] for row in rows])]


def subjects(spec: DatasetSpec, dataset: Dataset) -> list[Block]:
    """How many clips of each class every subject and every fold of the paper's protocol has."""
    clips, labels = dataset.clips, _labels(dataset)

    def per_class(inside: Sequence[Clip]) -> list[int]:
        return [sum(clip.label == label for clip in inside) for label in labels]

    reader, blocks = registry.reader(spec.kind, spec.name), []
    protocol = {"name": reader.protocol, "k": reader.k, "seed": 0, "folds_file": None}
    try:
        all_folds = finetuning_run.make_folds(protocol, clips)
    except UserError as error:  # too few subjects, as in a part of a dataset: it can be looked at
        all_folds = ()
        blocks.append(Text(f"No folds: {error}"))
    fold_of = folds.fold_of(clips, all_folds)
    rows = []
    for subject in sorted({clip.subject for clip in clips}):
        inside = [clip for clip in clips if clip.subject == subject]
        rows.append((subject, fold_of.get(subject, "none"), len(inside), *per_class(inside)))
    columns = ("subject", "fold", "clips", *labels.values())
    blocks += [Heading("Clips per subject"), _table(columns, rows)]

    if 0 < len(all_folds) < len(fold_of):
        rows = []
        for fold in all_folds:
            inside = [clips[i] for i in fold.test]
            people = len({clip.subject for clip in inside})
            rows.append((fold.name, people, len(inside), *per_class(inside)))
        columns = ("fold", "subjects", "clips", *labels.values())
        blocks += [Heading("Clips per fold"), _table(columns, rows)]
    return blocks


def lengths(clips: Sequence[Clip]) -> list[Block]:
    """Shortest, median and longest of what can be counted in frames, and a histogram."""
    counted = [len(clip.frames) for clip in clips]
    measures = {
        "frames of a clip": counted,
        "onset to apex": [c.apex - c.onset for c in clips if min(c.onset, c.apex) >= 0],
        "onset to offset": [c.offset - c.onset for c in clips if min(c.onset, c.offset) >= 0],
    }
    rows = [
        (name, min(values), f"{np.median(values):g}", max(values))
        for name, values in measures.items()
        if values
    ]
    blocks: list[Block] = [
        Heading("Lengths, in frames"),
        _table(("", "min", "median", "max"), rows),
        Heading("Frames of a clip"),
    ]
    bins = histogram(counted)
    most, rows = max(count for _, count in bins), []
    for span, count in bins:
        name = f"{span[0]}–{span[-1]}" if len(span) > 1 else span[0]
        rows.append((name, count, "█" * -(-BAR * count // most)))
    return [*blocks, _table(("frames", "clips", ""), rows)]


def histogram(values: Sequence[int]) -> list[tuple[range, int]]:
    """How many values lie in each of at most BINS ranges of equal width, from the least on."""
    least, most = min(values), max(values)
    width = -(-(most + 1 - least) // BINS)
    spans = [range(first, first + width) for first in range(least, most + 1, width)]
    return [(span, sum(value in span for value in values)) for span in spans]


def irregular(out: pathlib.Path, dataset: Dataset) -> list[Block]:
    """What was set aside or repaired: the first of each kind here, all of them in a file."""
    rows = [("set aside", each.id, each.reason, "") for each in dataset.set_aside]
    rows += [("repaired", each.id, each.kind, each.what) for each in dataset.repairs]
    path = out / "irregular.csv"
    with files.whole(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([("fate", "clip", "why", "what was done"), *rows])

    blocks: list[Block] = [Heading("Irregular rows")]
    blocks.append(Text(f"All of them are in {path.name}." if rows else "None."))
    kinds = _tally((fate, why) for fate, _, why, _ in rows)
    for kind, count in kinds[:SHOWN]:
        fate, why = kind
        inside = [row[1::2] for row in rows if (row[0], row[2]) == kind][:SHOWN]
        blocks.append(Heading(f"{fate.capitalize()}, {count}: {why}", 3))
        told = any(what for _, what in inside)
        more = f"and {count - SHOWN} more, in {path.name}" if count > SHOWN else ""
        columns = ("clip", "what was done") if told else ("clip",)
        blocks.append(_table(columns, [row[: len(columns)] for row in inside], more))
    if len(kinds) > SHOWN:
        blocks.append(Text(f"And {len(kinds) - SHOWN} more kinds, in {path.name}."))
    return blocks


def _labels(dataset: Dataset) -> dict[int, str]:
    """The labels that there are, with their names; −1 is a clip without one."""
    labels = dict(enumerate(dataset.classes))
    if any(clip.label < 0 for clip in dataset.clips):
        labels[-1] = "no label"
    return labels


def _tally(values: Iterable) -> list[tuple[Any, int]]:
    """(value, count), the most frequent first."""
    return collections.Counter(values).most_common()


def _table(columns: Sequence[str], rows: Iterable[Sequence], caption: str = "") -> Table:
    return Table(columns, [tuple(map(str, row)) for row in rows], caption)


# ----- pictures -----------------------------------------------------------------------------------


def pictures(
    title: str,
    name: str,
    clips: Sequence[Clip],
    classes: Sequence[str],
    out: pathlib.Path,
    size: int,
) -> list[Block]:
    """Pictures of a few clips, evenly spaced among all of them.

    Args:
      name: of the files in `out`, before a number.
    """
    if not clips:
        return []
    places = np.linspace(0, len(clips) - 1, min(SHOWN, len(clips))).round().astype(int)
    blocks: list[Block] = [
        Heading(title),
        Text(f"{len(places)} of {len(clips)}, evenly spaced in the order of their names."),
    ]
    for number, place in enumerate(places, 1):
        clip = clips[place]
        label = classes[clip.label] if clip.label >= 0 else "no label"
        about = [clip.id, label] if classes else [clip.id]
        if clip.action_units:
            about.append(f"action units {clip.action_units}")
        if origin := extract.origin(clip):
            about.append(f"from {printable(os.path.basename(origin.path))}")
        try:
            picture, parts = strip(clip, size)
        except FrameError as error:
            blocks.append(Text(f"{', '.join(about)}: no picture, {error}"))
            continue
        path = out / f"{name}-{number:02d}.jpg"
        with files.whole(path) as temporary:
            temporary.write_bytes(frames.jpeg(picture))
        caption = f"{', '.join(about)}. From left to right: {'; '.join(parts)}."
        blocks.append(Picture(path, caption, f"Frames of {', '.join(about)}"))
    return blocks


def strip(clip: Clip, size: int) -> tuple[np.ndarray, list[str]]:
    """A clip in one row, and what its parts are.

    They are the whole frame with a line around what is cropped, if it is cropped; then onset and
    apex where these are known, else the first, the middle and the last frame; then the difference
    of the last and the first of these, amplified.

    Returns:
      uint8 RGB (size, w, 3), and a word for each part.

    Raises:
      FrameError: none of the frames can be read.
    """
    last = len(clip.frames) - 1
    wanted = {"first": 0, "middle": last // 2, "last": last}
    if min(clip.onset, clip.apex) >= 0:
        wanted = {"onset": clip.onset, "apex": clip.apex}
    names, read = list(wanted), [read_nearest(clip, i, size) for i in wanted.values()]

    parts = [picture for _, picture in read]
    words = [f"{name}, {frame_name(clip, i)}" for name, (i, _) in zip(names, read, strict=True)]
    change = (parts[-1].astype(np.float32) - parts[0]) / 127.5
    gain = drawing.visible_gain(change)
    parts.append((drawing.amplified(change, gain) * 255).round().astype(np.uint8))
    words.append(f"{names[-1]} − {names[0]}, × {gain:.1f}")
    if (marked := whole_frame(clip, read[0][0], size)) is not None:
        parts.insert(0, marked)
        words.insert(0, f"{names[0]} before the crop, with a line around it")
    return np.hstack(parts), words


def whole_frame(clip: Clip, position: int, height: int) -> np.ndarray | None:
    """A frame before it was cropped, with a line around what is cropped; None if nothing was.

    Returns:
      uint8 RGB (height, w, 3).

    Raises:
      FrameError: the video cannot be read any more.
    """
    origin = extract.origin(clip)
    if clip.box:
        image, box = frames.read_frame(clip.frames, position), clip.box
    elif origin and origin.box:
        wanted = _number(clip, position)
        image = next(f.image for i, f in enumerate(video.decode(origin.path)) if i == wanted)
        box = origin.box
    else:
        return None
    return _marked(image, box, height)


def _marked(image: np.ndarray, box: Box, height: int) -> np.ndarray:
    scale = height / image.shape[0]
    width = round(image.shape[1] * scale)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    centre = (box.left + box.size / 2, box.top + box.size / 2)
    corners = scale * cv2.boxPoints((centre, (box.size, box.size), box.angle))
    line = [corners.round().astype(np.int32)]
    return cv2.polylines(image, line, True, GREEN, thickness=max(2, height // 80))


def frame_name(clip: Clip, position: int) -> str:
    """A frame as its file is called, or as it is counted in its video."""
    if extract.origin(clip):
        return f"frame {_number(clip, position)}"
    if isinstance(clip.frames, ImageFolder):
        return printable(clip.frames.names[position])
    return f"frame {position} of {len(clip.frames)}"


def _number(clip: Clip, position: int) -> int:
    """The position in its video of a frame in the cache."""
    return int(pathlib.Path(clip.frames.names[position]).stem)
