"""From an annotation sheet and folders of frames to clips with onset, apex and offset: what the
micro-expression datasets have in common.

The number of clips N is part of a result. So a row of the protocol is given up only if its frames
are not there at all. Whatever else is wrong with it is repaired by one of these rules, counted, and
told for each clip:

- A fault that is known, and has a known answer, is corrected (`corrections.py`).
- Frame numbers that count from another origin than the files are rebased, in the way for which most
  rows of the sheet speak (`frame_numbers.counting`).
- If the onset or offset is missing, or lies more than a few frames outside the files, or if the
  offset is not after the onset, the first or last frame of the clip is taken.
- If the apex is missing, or lies more than a few frames outside the files, or is not after the
  onset (the pair would show nothing), or is after the offset, it is estimated: the frame between
  onset and offset that differs most from the onset.
- If another frame is not there, the nearest frame is taken.
- If raw frames show no face, the box of the subject's other clips is taken, else the square in the
  middle of the frame.
"""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Clip, Dataset, Repair, SetAside
from ma2mi_jax.clips.frames import (
    Box,
    FrameError,
    ImageFolder,
    Unreachable,
    crop,
    frame_numbers,
    read_frame,
)
from ma2mi_jax.clips.opencv import threads
from ma2mi_jax.datasets.common import disk, extract, listing, sheets
from ma2mi_jax.datasets.common.frame_numbers import APEX, counting, locate
from ma2mi_jax.datasets.corrections import CORRECTIONS
from ma2mi_jax.errors import UserError

RULES = 2  # version of the rules for boxes and apices, which are kept: raise it when they change
SIZE = 256  # pixels along a side at which frames are compared

SPELLINGS = {
    "other": "others",
    "happy": "happiness",
    "sad": "sadness",
    "angry": "anger",
    "surprised": "surprise",
}
"""Other spellings of emotions, so that those of two datasets have one name."""

KNOWN = "known faults of the sheet, answered as corrections.py says"
ELSEWHERE = "no face on the onset frame, that of another frame taken"
FACE_OF_SUBJECT = "no face found, the box of the subject's other clips taken"
UNREAD = "none of its frames can be read: its box is not known"
NO_FACE = "no face found, the square in the middle of the frame taken"


@dataclasses.dataclass(frozen=True)
class Traits:
    """What is particular to one dataset.

    Attributes:
      name: as a person asks for it.
      published: the classes of the paper, each with the number of clips that it evaluated; None
        where that number is not known.
      subject: how subjects are spelled, a format of one integer; None is as the sheet has them.
      fps: frames per second of the recording, where the row does not tell them; 0 is unknown.
      rebases: whether sheet and files may count frames from different origins.
      ends: whether every row is to name its offset.
    """

    name: str
    published: Mapping[str, int | None]
    subject: str | None
    fps: float
    rebases: bool = False
    ends: bool = True

    def subject_name(self, text: str) -> str | None:
        """The dataset's own spelling of `1`, `01` or `sub01`; None if there is no number in it."""
        if self.subject is None:
            return text
        number = re.search(r"[0-9]+", text)
        known = sheets.whole(number[0]) if number else None
        return None if known is None else self.subject.format(known)


class Sample(NamedTuple):
    """A row of the sheet and what was mended in it. The clip's apex is -1 until it is estimated."""

    clip: Clip
    repairs: tuple[Repair, ...]


def read(
    traits: Traits,
    rows: Sequence[Mapping[str, str]],
    folders: Mapping[str, ImageFolder],
    *,
    sheet: str,
    cache: str,
    classes: Mapping[str, int | None] | None = None,
    exact: Collection[str] = (),
    cropped: bool = False,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the sheet's rows that are in the dataset's classes.

    Args:
      traits: what is particular to the dataset.
      rows: of the sheet, as from `sheets.read`.
      folders: the clips on the disk by id, `<subject>/<file name>`. Letter case counts only where
        two of them differ in nothing else.
      sheet: path of the sheet.
      cache: folder that keeps boxes and estimated apices. They are found again if a clip's folder
        or its first file changes.
      classes: other emotions than `traits.published`, each with the number of clips published.
      exact: ids of clips whose rows count frames as the files do, however the others count.
      cropped: True takes frames as they are. False crops those that are wider than 5:4, as frames
        of a camera are.
      detector: finds faces; None is `faces.haar()`.
      progress: called as progress(done, total) with the clips that are searched for faces.

    Raises:
      UserError: not one row can be used, or the cache cannot be written.
    """
    if classes:
        traits = dataclasses.replace(traits, published=classes)
    there = _as_on_disk([_id(traits, row) for row in rows], folders)
    by_id = {id: numbered(folders[spelled]) for id, spelled in there.items()}
    votes = _votes(traits, rows, by_id, exact) if traits.rebases else {}
    counts = next(iter(votes), None)

    # ----- rows -----
    samples: dict[str, Sample] = {}
    set_aside, others = [], collections.Counter()
    for row in rows:
        id, label = _id(traits, row), emotion(row)
        if label not in traits.published:
            others[label or "none given"] += 1
        elif reason := _unusable(traits, row, id, by_id, samples):
            set_aside.append(SetAside(id, reason))
        else:
            clip = Clip(
                id,
                by_id[id],
                subject=traits.subject_name(row["subject"]),
                label=list(traits.published).index(label),
                fps=sheets.whole(row.get("fps", "")) or traits.fps,
            )
            samples[id] = _sample(row, clip, None if id in exact else counts, traits.ends)
    if not samples:
        raise _no_row(traits, rows, sheet, set_aside)

    # ----- faces and apices -----
    ordered = [samples[id] for id in sorted(samples)]
    with disk.remembered(os.path.join(cache, "found.json")) as found:
        if not cropped:
            ordered, unread = _crop(ordered, found, detector or faces.haar(), progress)
            set_aside += unread
        ordered = _estimate(ordered, found)
    if not ordered:
        raise _no_row(traits, rows, sheet, set_aside)

    # ----- what is told -----
    clips = tuple(sample.clip for sample in ordered)
    repairs = tuple(repair for sample in ordered for repair in sample.repairs)
    notes = [*sheets.notes(sheet), *disk.notes_of(repairs)]
    if boxes := sum(clip.box is not None for clip in clips):
        notes.insert(0, f"raw frames, cropped by one face box a clip: {boxes} of {len(clips)}")
    if sum(n > 0 for n in votes.values()) > 1:
        told = "; ".join(f"{name} {n}" for name, n in votes.items() if n)
        notes.append(f"how the sheet counts frames, by its rows: {told}")
    if others:
        told = f"{others.total()} ({_listed(others)})"
        notes.append(f"rows of other emotions, which the protocol leaves out: {told}")
    listed = set(there.values())
    if unlisted := [id for id in folders if id not in listed]:
        told = f"{len(unlisted)} ({disk.some(unlisted)})"
        notes.append(f"clips on disk that the sheet does not list: {told}")
    notes += _differences(traits, clips)

    return Dataset(
        traits.name,
        clips,
        tuple(traits.published),
        tuple(sorted(set_aside, key=lambda each: each.id)),
        tuple(notes),
        os.path.basename(sheet),
        repairs,
    )


# ----- the clips and the sheet on the disk --------------------------------------------------------


def clips_by_subject(traits: Traits, frames: str | None, *, cache: str) -> dict[str, ImageFolder]:
    """The clips in the subjects' folders under `frames`, by id; none if there is no image."""
    on_disk = listing.clip_folders(frames, 2, cache=cache) if frames else {}
    if not any(map(len, on_disk.values())):
        return {}
    clips = {}
    for path, images in on_disk.items():
        subject, clip = path.split("/")
        if name := traits.subject_name(subject):
            clips[f"{name}/{clip}"] = images
    return clips


def first_clips(
    traits: Traits, places: Iterable[str], *, cache: str
) -> tuple[str, dict[str, ImageFolder]]:
    """The first of `places` that holds images, with its clips by id; ("", {}) if none does."""
    for place in places:
        if clips := clips_by_subject(traits, place, cache=cache):
            return place, clips
    return "", {}


def subjects_folders(root: str, subject: str, depth: int = 2) -> list[str]:
    """The folders that hold subjects' folders: `root`, or those at most `depth` levels below it.

    Args:
      root: where to look. The first level at which there is a subject's folder ends the search.
      subject: regular expression for the names of subjects' folders; letter case does not matter.
    """
    level = [os.path.abspath(root)]
    for _ in range(depth + 1):
        level = [disk.innermost(folder) for folder in level]
        found = [
            folder
            for folder in level
            if any(
                re.fullmatch(subject, name.strip(), re.IGNORECASE) for name in disk.folders(folder)
            )
        ]
        if found:
            return found
        level = [inner for folder in level for inner in _inside(folder)]
    return []


def find_sheet(dataset: str, root: str, frames: str, pattern: str, annotations: str | None) -> str:
    """Path of the annotation sheet.

    It is `annotations` if that is given. Otherwise the last by name of those that match `pattern`,
    which is the later of two editions; and if none matches, the only sheet that is there.

    Args:
      dataset: its name, for the error.
      root, frames: folders in which to look, and beside which.
      pattern: regular expression for the beginning of the file's name.
      annotations: path that a person gave.

    Raises:
      UserError: there is no sheet, or there are several and none matches.
    """
    if annotations:
        return annotations
    beside = os.path.dirname(os.path.abspath(frames))
    near = [root, *_inside(root), frames, beside]
    found = _sheets(near)
    if not any(re.match(pattern, os.path.basename(path), re.IGNORECASE) for path in found):
        deeper = [inner for folder in _inside(root) for inner in _inside(folder)]
        found = _sheets([*near, *deeper])
    matching = [path for path in found if re.match(pattern, os.path.basename(path), re.IGNORECASE)]
    if matching:
        return max(matching, key=lambda path: os.path.basename(path).lower())
    books = [path for path in found if not path.rstrip().lower().endswith(".csv")]
    for alone in (books, found):  # lists of other things are .csv files too
        if len(alone) == 1:
            return alone[0]
    raise UserError(
        "[target={dataset}]: looked for the annotation sheet {pattern} under {root}, found "
        "{there}; give the sheet as [annotations]",
        dataset=dataset,
        pattern=pattern,
        root=root,
        there=disk.some(map(os.path.basename, found)) or f"no file of {', '.join(sheets.SUFFIXES)}",
    )


def _inside(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in disk.folders(folder)]


def _sheets(places: Sequence[str]) -> list[str]:
    return [
        os.path.join(place, name)
        for place in dict.fromkeys(places)
        for name in disk.files(place, sheets.SUFFIXES)
    ]


# ----- rows ---------------------------------------------------------------------------------------


def _id(traits: Traits, row: Mapping[str, str]) -> str:
    return f"{traits.subject_name(row['subject']) or row['subject']}/{row['filename']}"


def _as_on_disk(ids: Sequence[str], folders: Mapping[str, ImageFolder]) -> dict[str, str]:
    """Each id whose clip is there, with the id as the disk spells it."""
    alike = collections.defaultdict(list)
    for id in folders:
        alike[id.lower()].append(id)
    found = {}
    for id in ids:
        if id in folders:
            found[id] = id
        elif len(alike[id.lower()]) == 1:
            found[id] = alike[id.lower()][0]
    return found


def emotion(row: Mapping[str, str]) -> str:
    """The name of a row's class."""
    written = row["estimatedemotion"].lower()
    return SPELLINGS.get(written, written)


def _unusable(
    traits: Traits,
    row: Mapping[str, str],
    id: str,
    by_id: Mapping[str, ImageFolder],
    samples: Mapping[str, Sample],
) -> str:
    """Why a row of one of the classes cannot be used; empty if it can."""
    frames = by_id.get(id)
    if traits.subject_name(row["subject"]) is None:
        return f"subject {row['subject']!r} has no number; mend the sheet"
    if not row["filename"]:
        return "a row of the sheet without a file name; mend the sheet"
    if id in samples:
        return "listed twice in the sheet: only the first row counts"
    if frames is None:
        return "in the sheet, but there is no such folder of frames"
    if len(frames) < 2:
        return f"onset and apex need two frames, its folder holds {len(frames)}"
    return ""


def _no_row(traits: Traits, rows: Sequence, sheet: str, set_aside: Sequence[SetAside]) -> UserError:
    """The error for a sheet of which not one row can be used."""
    if set_aside:
        why = f"{set_aside[0].id} {set_aside[0].reason}"
    else:
        why = f"no row's emotion is one of {', '.join(traits.published)}"
    return UserError(
        "[target={name}]: none of the {count} rows of {sheet} can be used (as: {why}); give the "
        "frames as [root] and their sheet as [annotations]",
        name=traits.name,
        count=len(rows),
        sheet=sheet,
        why=why,
    )


def numbered(frames: ImageFolder) -> ImageFolder:
    """The images that have a number, in the order of their numbers; the others are no frames."""
    by_name = dict(zip(frames.names, frame_numbers(frames.names), strict=True))
    names = [name for name in frames.names if by_name[name] is not None]
    return ImageFolder(frames.folder, tuple(sorted(names, key=by_name.__getitem__)))


def _votes(
    traits: Traits,
    rows: Sequence[Mapping[str, str]],
    by_id: Mapping[str, ImageFolder],
    exact: Collection[str],
) -> Mapping[str, int]:
    """How the sheet counts frames. Rows that the protocol leaves out have a vote too."""
    ids = [_id(traits, row) for row in rows]
    return counting(
        (
            frame_numbers(by_id[id].names),
            sheets.whole(row["onsetframe"]),
            sheets.whole(row["offsetframe"]),
        )
        for id, row in zip(ids, rows, strict=True)
        if by_id.get(id) and id not in exact
    )


def _sample(row: Mapping[str, str], clip: Clip, counts: str | None, ends: bool) -> Sample:
    """The clip with the positions that the row names, mended where need be."""
    repairs = []
    correction = CORRECTIONS.get((clip.subject, row["filename"]))
    if correction and row[correction.column] == correction.wrong:
        row = {**row, correction.column: correction.right}
        told = f"{correction.column} {correction.wrong} → {correction.right}"
        repairs.append(Repair(clip.id, KNOWN, f"{told}: {correction.reason}"))

    columns = ("onsetframe", "apexframe", "offsetframe")
    onset, apex, offset = (sheets.whole(row[column]) for column in columns)
    place = locate(frame_numbers(clip.frames.names), onset, apex, offset, counts=counts, ends=ends)
    repairs += [Repair(clip.id, kind, what) for kind, what in place.faults]
    clip = dataclasses.replace(
        clip,
        onset=place.onset,
        apex=place.apex,
        offset=place.offset,
        action_units=row.get("actionunits", ""),
    )
    return Sample(clip, tuple(repairs))


# ----- faces --------------------------------------------------------------------------------------


def _crop(
    samples: list[Sample],
    found: dict,
    detector: faces.Detector,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Sample], list[SetAside]]:
    """The samples with a face box for each clip of raw frames, and those without a readable frame.

    Args:
      found: what was found out before, by key; what is found out now is added.
    """
    search = functools.partial(_search, detector=detector, found=found)
    results = []
    with threads() as pool:
        searched = pool.map(search, [sample.clip for sample in samples])
        for done, (key, result, keep) in enumerate(searched, 1):
            if keep:
                found[key] = result  # at once, so that an interrupted search goes on from here
            results.append(result)
            if progress:
                progress(done, len(samples))

    boxes = collections.defaultdict(list)  # by subject, height and width
    for sample, result in zip(samples, results, strict=True):
        if result["box"]:
            boxes[sample.clip.subject, *result["shape"]].append(result["box"])
    boxed, unread = [], []
    for sample, result in zip(samples, results, strict=True):
        if any(result["shape"]):
            boxed.append(_boxed(sample, result, boxes))
        else:
            unread.append(SetAside(sample.clip.id, UNREAD))
    return boxed, unread


def _boxed(sample: Sample, result: dict, boxes: Mapping[tuple, list]) -> Sample:
    """The sample with the box that was found, or that stands in for it.

    Args:
      result: of `_search`.
      boxes: those of all clips, by subject, height and width of the frames.
    """
    clip, box, kind = sample.clip, result["box"], ""
    if result["raw"] and not box:
        height, width = result["shape"]
        of_subject = boxes.get((clip.subject, height, width))
        if of_subject:
            kind = FACE_OF_SUBJECT
            *square, angle = np.median(of_subject, axis=0).tolist()
            box = [*map(round, square), angle]
        else:
            kind, side = NO_FACE, min(height, width)
            box = [(width - side) // 2, (height - side) // 2, side]
    elif result["looks"] > 1:
        kind = ELSEWHERE

    repairs = sample.repairs
    if kind:
        repairs = (*repairs, Repair(clip.id, kind, f"{result['looks']} of its frames searched"))
    return Sample(dataclasses.replace(clip, box=Box(*box) if box else None), repairs)


def _search(clip: Clip, detector: faces.Detector, found: dict) -> tuple[str, dict, bool]:
    """Looks whether frames are raw, and for the face on the first frame that shows one.

    The onset comes first, then apex and offset, then frames spread over the clip.

    Returns:
      A key for `found`; the result: "raw", "box" (None if there is no face), "shape" of the last
      frame looked at, zeros if none can be read, and in "looks" how many raw frames were searched;
      and whether it is to be kept: another run may reach what could not be reached now.
    """
    spread = faces.spread(len(clip.frames))
    order = list(dict.fromkeys(i for i in (clip.onset, clip.apex, clip.offset, *spread) if i >= 0))
    result = {"raw": False, "box": None, "shape": [0, 0], "looks": 0}
    key = disk.stamp(clip.frames, "crop", RULES)
    if key in found and any(found[key]["shape"]):
        return key, found[key], True

    failures: list[FrameError] = []
    readable = (image for i in order if (image := _image(clip, i, failures)) is not None)
    for image in readable:
        result["shape"], result["raw"] = list(image.shape[:2]), not extract.squarish(image.shape)
        if not result["raw"]:
            break
        if not result["looks"]:
            key = disk.stamp(clip.frames, "box", RULES, detector.name, order)
            if key in found:
                return key, found[key], True
        result["looks"] += 1
        if box := faces.steady_box([detector(image)]):
            result["box"] = list(dataclasses.astuple(box))
            break
    return key, result, not _unreached(failures)


def _image(clip: Clip, position: int, failures: list[FrameError]) -> np.ndarray | None:
    """A frame; None if it cannot be read: the pipeline takes another one then, and says so.

    Why it cannot be read is added to `failures`.
    """
    try:
        return read_frame(clip.frames, position)
    except FrameError as error:
        failures.append(error)
        return None


def _unreached(failures: Sequence[FrameError]) -> bool:
    """Whether one of them may be of today alone: a disk that does not answer."""
    return any(isinstance(error, Unreachable) for error in failures)


# ----- apices -------------------------------------------------------------------------------------


def _estimate(samples: list[Sample], found: dict) -> list[Sample]:
    """The samples with an apex for each clip that lacks one; `found` as for `_crop`."""
    lacking = {i: sample.clip for i, sample in enumerate(samples) if sample.clip.apex < 0}
    with threads() as pool:
        results = pool.map(functools.partial(_remembered_apex, found=found), lacking.values())
        apices = dict(zip(lacking, results, strict=True))

    samples = list(samples)
    for i, (key, apex, keep) in apices.items():
        if keep:
            found[key] = apex
        clip, repairs = samples[i]
        told = f"; {clip.frames.names[apex]} taken"
        repairs = tuple(
            dataclasses.replace(repair, what=repair.what + told) if repair.kind == APEX else repair
            for repair in repairs
        )
        samples[i] = Sample(dataclasses.replace(clip, apex=apex), repairs)
    return samples


def _remembered_apex(clip: Clip, found: dict) -> tuple[str, int, bool]:
    """A key for `found`, the apex, and whether it is to be kept, as for `_search`."""
    box = clip.box and dataclasses.astuple(clip.box)
    key = disk.stamp(clip.frames, "apex", RULES, box, clip.onset, clip.offset)
    if key in found:
        return key, found[key], True
    failures: list[FrameError] = []
    apex = estimate_apex(clip, failures)
    return key, apex, not _unreached(failures)


def estimate_apex(clip: Clip, failures: list[FrameError] | None = None) -> int:
    """Position of the frame after the onset, up to the offset, that differs most from the onset.

    The difference is the mean absolute one between grey values of the face crops, SIZE × SIZE.
    Ties go to the earlier frame. If no frame lies between onset and offset, the rest of the clip is
    searched; and if the onset is the last frame, what is before it. If the onset cannot be read, or
    none of these frames, the one in the middle of them is taken. Why a frame cannot be read is
    added to `failures`.
    """
    candidates = _candidates(clip)
    failures = [] if failures is None else failures
    start = _grey(clip, clip.onset, failures)

    changes = {}
    for i in candidates if start is not None else ():
        picture = _grey(clip, i, failures)
        if picture is not None:
            changes[i] = float(np.abs(picture - start).mean())
    if not changes:
        return candidates[len(candidates) // 2]
    return max(changes, key=changes.__getitem__)


def _candidates(clip: Clip) -> range:
    """The frames of which one is to be the apex, see `estimate_apex`."""
    last = len(clip.frames) - 1
    if clip.onset == last:
        return range(last)
    end = clip.offset if clip.offset > clip.onset else last
    return range(clip.onset + 1, end + 1)


def _grey(clip: Clip, position: int, failures: list[FrameError]) -> np.ndarray | None:
    """float32 (SIZE, SIZE), grey values from 0 to 255; None as for `_image`."""
    image = _image(clip, position, failures)
    if image is None:
        return None
    return cv2.cvtColor(crop(image, clip.box, SIZE), cv2.COLOR_RGB2GRAY).astype(np.float32)


# ----- counts -------------------------------------------------------------------------------------


def _differences(traits: Traits, clips: Sequence[Clip]) -> tuple[str, ...]:
    """One line if the classes do not have as many clips as published."""
    names = list(traits.published)
    counts = collections.Counter(names[clip.label] for clip in clips)
    differing = [
        f"{name} {counts[name]} (published {n})"
        for name, n in traits.published.items()
        if n is not None and counts[name] != n
    ]
    if not differing:
        return ()
    total = sum(n or 0 for n in traits.published.values())
    return (f"N = {len(clips)}, published {total}; classes that differ: {', '.join(differing)}",)


def _listed(counts: collections.Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
