"""From an annotation sheet and folders of frames to clips with onset, apex and offset: what the micro-expression sets have in common.

N is part of a result. So a row of the protocol is given up only if its frames are not there at all; whatever else is wrong with it is
repaired by a rule that stands here, counted, and told clip by clip:

- a fault that is known and has a known answer is corrected (`corrections.py`);
- frame numbers that count from another frame than the files' are rebased, in the way most rows of the sheet speak for (`places.counting`);
- an onset or offset that is missing, or an offset not after its onset, gives way to the first or last frame of the clip;
- a frame that is not there gives way to the nearest that is;
- an apex that is missing, not after the onset (an onset is no apex: the pair would show nothing) or after the offset is estimated, as the
  frame between them that differs most from the onset;
- where raw frames show no face, the box of the subject's other clips is taken, else the square in the middle of the frame.
"""

import collections
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Clip, Dataset, Repair, SetAside
from ma2mi_jax.clips.frames import (
    Box,
    FrameError,
    ImageFolder,
    crop,
    frame_number,
    read_frame,
)
from ma2mi_jax.clips.opencv import threads
from ma2mi_jax.datasets.common import disk, extract, sheets
from ma2mi_jax.datasets.common.frame_numbers import APEX, counting, locate
from ma2mi_jax.datasets.corrections import CORRECTIONS
from ma2mi_jax.errors import UserError

RULES = 1  # version of the rules for boxes and apices, which are kept: raise it when they change
LOOKS = 12  # other frames that are searched where the onset shows no face
SIZE = 256  # pixels along a side at which frames are compared

KNOWN = "known faults of the sheet, answered as corrections.py says"
ELSEWHERE = "no face on the onset frame, that of another frame taken"
FACE_OF_SUBJECT = "no face found, the box of the subject's other clips taken"
NO_FACE = "no face found, the square in the middle of the frame taken"


@dataclasses.dataclass(frozen=True)
class Traits:
    """What is particular to one.

    Attributes:
      name: on the command line.
      published: the classes of the paper, with the number of clips that it evaluated.
      subject: how subjects are spelled, a format of one integer.
      fps: of the recording.
      rebases: whether sheet and files may count frames from different ones.
    """

    name: str
    published: Mapping[str, int]
    subject: str
    fps: float
    rebases: bool = False

    def subject_name(self, text: str) -> str | None:
        """The dataset's own spelling of `1`, `01` or `sub01`; None without a number."""
        number = re.search(r"[0-9]+", text)
        return number and self.subject.format(int(number[0]))


class Sample(NamedTuple):
    """A row of the sheet and what was done to it; the clip's apex is -1 while it is to be estimated."""

    clip: Clip
    repairs: tuple[Repair, ...]


def read(
    dataset: Traits,
    rows: Sequence[Mapping[str, str]],
    folders: Mapping[str, ImageFolder],
    *,
    sheet: str,
    cropped: bool | None,
    cache: str,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the sheet's rows that are in the dataset's classes.

    Args:
      rows: as of `sheets.read`.
      folders: the clips on disk by id, `<subject>/<file name>`.
      sheet: path of the sheet.
      cropped: True takes frames as they are; None crops those that are wider than 5:4, as a camera's are.
      cache: folder that keeps boxes and estimated apices; forgotten where a clip's folder or first file changes.
      detector: finds faces; None is `faces.haar()`.
      progress: called as progress(done, total) for clips that are searched for faces.

    Raises:
      UserError: not one row can be used, or the cache cannot be written.
    """
    by_id = {id.lower(): _numbered(frames) for id, frames in folders.items()}
    votes = _votes(dataset, rows, by_id) if dataset.rebases else {}
    samples, set_aside, others, used = {}, [], collections.Counter(), set()
    for row in rows:
        subject, id = dataset.subject_name(row["subject"]), _id(dataset, row)
        used.add(id.lower())
        emotion = row["estimatedemotion"].lower()
        emotion = {"other": "others"}.get(emotion, emotion)
        frames = by_id.get(id.lower())
        if emotion not in dataset.published:
            others[emotion or "none given"] += 1
        elif subject is None:
            set_aside.append(
                SetAside(id, f"subject {row['subject']!r} has no number; mend the sheet")
            )
        elif not row["filename"]:
            set_aside.append(SetAside(id, "a row of the sheet without a file name; mend the sheet"))
        elif id in samples:
            set_aside.append(SetAside(id, "listed twice in the sheet: only the first row counts"))
        elif frames is None:
            set_aside.append(SetAside(id, "in the sheet, but there is no such folder of frames"))
        elif len(frames) < 2:
            set_aside.append(
                SetAside(id, f"onset and apex need two frames, its folder holds {len(frames)}")
            )
        else:
            clip = Clip(
                id,
                frames,
                subject=subject,
                label=list(dataset.published).index(emotion),
                fps=dataset.fps,
            )
            samples[id] = _sample(row, clip, next(iter(votes), None))
    if not samples:
        why = (
            f"{set_aside[0].id} {set_aside[0].reason}"
            if set_aside
            else f"no row's emotion is one of {', '.join(dataset.published)}"
        )
        raise UserError(
            f"--target={dataset.name}: none of the {len(rows)} rows of {sheet} can be used (as: {why}); give --data-root and --annotations"
        )
    ordered = [samples[id] for id in sorted(samples)]
    with disk.remembered(os.path.join(cache, "found.json")) as found:
        if not cropped:
            ordered = _crop(ordered, found, detector or faces.haar(), progress)
        ordered = _estimate(ordered, found)
    clips, repairs = (
        tuple(sample.clip for sample in ordered),
        tuple(repair for sample in ordered for repair in sample.repairs),
    )
    notes = disk.notes_of(repairs)
    if boxes := sum(clip.box is not None for clip in clips):
        notes = (f"raw frames, cropped by one face box a clip: {boxes} of {len(clips)}", *notes)
    if sum(map(bool, votes.values())) > 1:
        notes += (
            f"how the sheet counts frames, by its rows: {'; '.join(f'{name} {n}' for name, n in votes.items() if n)}",
        )
    if others:
        notes += (
            f"rows of other emotions, which the protocol leaves out: {others.total()} ({_counts(others)})",
        )
    if unlisted := [id for id in folders if id.lower() not in used]:
        notes += (
            f"clips on disk that the sheet does not list: {len(unlisted)} ({disk.some(unlisted)})",
        )
    notes += _differences(dataset, clips)
    return Dataset(
        dataset.name,
        clips,
        tuple(dataset.published),
        tuple(sorted(set_aside, key=lambda s: s.id)),
        notes,
        os.path.basename(sheet),
        repairs,
    )


def clips_by_subject(dataset: Traits, frames: str | None, *, cache: str) -> dict[str, ImageFolder]:
    """The clips under `frames`, one folder for each subject, by id; none where there is no image."""
    on_disk = disk.clip_folders(frames, 2, cache=cache) if frames else {}
    if not any(map(len, on_disk.values())):
        return {}
    parts = {tuple(path.split("/")): clip for path, clip in on_disk.items()}
    return {
        f"{name}/{clip}": images
        for (subject, clip), images in parts.items()
        if (name := dataset.subject_name(subject))
    }


def find_sheet(dataset: str, root: str, frames: str, pattern: str, annotations: str | None) -> str:
    """Path of the sheet: `annotations`, or the last by name that matches `pattern` (of two editions the later), or the only one there is.

    Raises:
      UserError: none, or several and none that matches.
    """
    if annotations:
        return annotations
    places = dict.fromkeys(
        [
            root,
            *(os.path.join(root, name) for name in disk.folders(root)),
            frames,
            os.path.dirname(frames),
        ]
    )
    found = [
        os.path.join(place, name) for place in places for name in disk.files(place, (".xlsx",))
    ]
    matching = [path for path in found if re.match(pattern, os.path.basename(path), re.IGNORECASE)]
    if matching:
        return max(matching, key=lambda path: os.path.basename(path).lower())
    if len(found) == 1:
        return found[0]
    there = disk.some(map(os.path.basename, found)) or "no .xlsx file"
    raise UserError(
        f"--target={dataset}: looked for the annotation sheet {pattern} under {root}, found {there}; give --annotations=SHEET.xlsx"
    )


# ------------------------------------------------------------------------------------------------------------- frame numbers


def _id(dataset: Traits, row: Mapping[str, str]) -> str:
    return f"{dataset.subject_name(row['subject']) or row['subject']}/{row['filename']}"


def _numbered(frames: ImageFolder) -> ImageFolder:
    """Without the images that have no number, which are no frames."""
    return ImageFolder(
        frames.folder, tuple(name for name in frames.names if frame_number(name) is not None)
    )


def _numbers(frames: ImageFolder) -> list[int]:
    return [frame_number(name) for name in frames.names]


def _votes(
    dataset: Traits, rows: Sequence[Mapping[str, str]], folders: Mapping[str, ImageFolder]
) -> Mapping[str, int]:
    """How the sheet counts frames; rows of emotions that the protocol leaves out have a say too."""
    there = [(row, frames) for row in rows if (frames := folders.get(_id(dataset, row).lower()))]
    return counting(
        (_numbers(frames), sheets.whole(row["onsetframe"]), sheets.whole(row["offsetframe"]))
        for row, frames in there
    )


def _sample(row: Mapping[str, str], clip: Clip, counts: str | None) -> Sample:
    repairs = []
    correction = CORRECTIONS.get((clip.subject, row["filename"]))
    if correction and row[correction.column] == correction.wrong:
        if correction.right is not None:
            row = {**row, correction.column: correction.right}
        repairs.append(
            Repair(
                clip.id,
                KNOWN,
                f"{correction.column} {correction.wrong} → {correction.right or 'estimated'}: {correction.reason}",
            )
        )
    onset, apex, offset = (
        sheets.whole(row[column]) for column in ("onsetframe", "apexframe", "offsetframe")
    )
    place = locate(_numbers(clip.frames), onset, apex, offset, counts=counts)
    repairs += [Repair(clip.id, kind, what) for kind, what in place.faults]
    clip = dataclasses.replace(
        clip,
        onset=place.onset,
        apex=place.apex,
        offset=place.offset,
        action_units=row.get("actionunits", ""),
    )
    return Sample(clip, tuple(repairs))


# --------------------------------------------------------------------------------------------------------- faces, and apices


def _crop(samples: list[Sample], found: dict, detector: faces.Detector, progress) -> list[Sample]:
    """With a face box for each clip of raw frames."""
    search = functools.partial(_search, detector=detector, found=found)
    results = []
    with threads() as pool:
        for done, (key, result) in enumerate(
            pool.map(search, [sample.clip for sample in samples]), 1
        ):
            found[key] = result  # at once: a search that is interrupted goes on from here
            results.append(result)
            if progress:
                progress(done, len(samples))
    boxes = collections.defaultdict(list)
    for sample, result in zip(samples, results, strict=True):
        if result["box"]:
            boxes[sample.clip.subject, *result["shape"]].append(result["box"])

    def boxed(sample: Sample, result: dict) -> Sample:
        clip, kind, what = sample.clip, "", f"{result['looks']} of its frames searched"
        box = result["box"]
        if result["raw"] and not box:
            height, width = result["shape"]
            side = min(height, width)
            kind, box = NO_FACE, [(width - side) // 2, (height - side) // 2, side]
            if of_subject := boxes[clip.subject, height, width]:
                kind, box = (
                    FACE_OF_SUBJECT,
                    np.median(of_subject, axis=0).round().astype(int).tolist(),
                )
        elif result["looks"] > 1:
            kind = ELSEWHERE
        repairs = (*sample.repairs, Repair(clip.id, kind, what)) if kind else sample.repairs
        return Sample(dataclasses.replace(clip, box=Box(*box) if box else None), repairs)

    return [boxed(sample, result) for sample, result in zip(samples, results, strict=True)]


def _search(clip: Clip, detector: faces.Detector, found: dict) -> tuple[str, dict]:
    """Whether the frames are raw, and if so the box of the face on the first frame that shows one, from the onset on; and its cache key."""
    spread = np.linspace(0, len(clip.frames) - 1, min(LOOKS, len(clip.frames))).astype(int).tolist()
    order = list(dict.fromkeys(i for i in (clip.onset, clip.apex, clip.offset, *spread) if i >= 0))
    key = disk.stamp(clip.frames, "box", RULES, detector.name, order)
    if key in found:
        return key, found[key]
    result = {"raw": False, "box": None, "shape": [0, 0], "looks": 0}
    for i in order:
        try:
            image = read_frame(clip.frames, i)
        except FrameError:  # the pipeline takes another in its place, and says so
            continue
        raw = not extract.squarish(image.shape)
        box = faces.clip_box([image], detector) if raw else None
        result = {
            "raw": raw,
            "box": box and list(dataclasses.astuple(box)),
            "shape": list(image.shape[:2]),
            "looks": result["looks"] + raw,
        }
        if box or not raw:
            break
    return key, result


def _estimate(samples: list[Sample], found: dict) -> list[Sample]:
    """With an apex for each clip that lacks one."""
    lacking = {i: sample.clip for i, sample in enumerate(samples) if sample.clip.apex < 0}
    with threads() as pool:
        apices = dict(
            zip(
                lacking,
                pool.map(functools.partial(_remembered_apex, found=found), lacking.values()),
                strict=True,
            )
        )
    samples = list(samples)
    for i, (key, apex) in apices.items():
        found[key] = apex
        clip = dataclasses.replace(samples[i].clip, apex=apex)
        told = f"; {clip.frames.names[apex]} taken"
        repairs = tuple(
            dataclasses.replace(r, what=r.what + told) if r.kind == APEX else r
            for r in samples[i].repairs
        )
        samples[i] = Sample(clip, repairs)
    return samples


def _remembered_apex(clip: Clip, found: dict) -> tuple[str, int]:
    box = clip.box and dataclasses.astuple(clip.box)
    key = disk.stamp(clip.frames, "apex", RULES, box, clip.onset, clip.offset)
    return key, found[key] if key in found else estimate_apex(clip)


def estimate_apex(clip: Clip) -> int:
    """Position of the frame after the onset, up to the offset, that differs most from the onset; of several the first.

    The difference is the mean absolute one between grey values of the face crop, SIZE × SIZE. Where no frame lies between onset and
    offset, the rest of the clip is searched, and if the onset is the last frame, what is before it. If the onset or all of these
    cannot be read, it is the one in the middle.
    """
    onset, count = clip.onset, len(clip.frames)
    between = range(onset + 1, clip.offset + 1) or range(onset + 1, count) or range(onset)
    start = _grey(clip, onset)
    pictures = ((i, _grey(clip, i)) for i in between) if start is not None else ()
    changes = {
        i: float(np.abs(picture - start).mean()) for i, picture in pictures if picture is not None
    }
    return max(changes, key=changes.__getitem__) if changes else between[len(between) // 2]


def _grey(clip: Clip, position: int) -> np.ndarray | None:
    """float32 (SIZE, SIZE), None if the frame cannot be read."""
    try:
        image = crop(read_frame(clip.frames, position), clip.box, SIZE)
    except FrameError:
        return None
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------- the counts


def _differences(dataset: Traits, clips: Sequence[Clip]) -> tuple[str, ...]:
    """One line if the classes do not have as many clips as published."""
    names = list(dataset.published)
    counts = collections.Counter(names[clip.label] for clip in clips)
    differing = [
        f"{name} {counts[name]} (published {n})"
        for name, n in dataset.published.items()
        if counts[name] != n
    ]
    total = sum(dataset.published.values())
    return (
        (f"N = {len(clips)}, published {total}; classes that differ: {', '.join(differing)}",)
        if differing
        else ()
    )


def _counts(counts: collections.Counter) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
