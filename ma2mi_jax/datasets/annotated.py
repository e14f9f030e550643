"""Clips of your own with a sheet of your own, as `csv`: one row for each clip.

  subject,clip,onset,apex,label
  anna,anna/smile,12,20,happiness         a folder of frames below the root
  ben,films/ben.mp4,0,,surprise           a video below the root; its apex is estimated

The columns offset, fps, action_units and dataset are read if they are there. Subjects of different
datasets are different persons.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Callable, Sequence

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset, Repair, SetAside
from ma2mi_jax.clips.frames import IMAGE_SUFFIXES, ImageFolder, frame_numbers, frame_order
from ma2mi_jax.datasets.common import disk, extract, micro, sheets
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError

COLUMNS = ("subject", "clip", "onset", "apex", "label")
FURTHER = ("offset", "fps", "actionunits", "dataset")  # read if they are there
SPELLED = "subjects in two spellings, taken as one person"
VIDEOS = "clips that are videos, whose frames count from 0"


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of the sheet; its labels, in lower case, are the classes (`micro.SPELLINGS`: those
    that are spelled in several ways have one name, as "happy" is happiness).

    Onset, apex and offset are the numbers in the names of the frames. Where these do not fit, they
    count from 1 in each clip; that is told (`frame_numbers.py`). The frames of a video count from
    0. An apex may be empty: it is estimated, and told. So may an offset: it is the last frame. A
    row that cannot be used is set aside under the number of its line.

    The arguments are those of `casme2.read`.

    Raises:
      UserError: there is no sheet, it lacks a column or has it twice, or none of its rows can be
        used.
    """
    sheet = micro.find_sheet("csv", root, root, "annotations", annotations)
    lines = _lines(sheet)
    lines, repairs = _one_spelling(lines)

    # ----- rows whose clip is there -----
    rows: list[dict[str, str]] = []
    folders: dict[str, ImageFolder] = {}
    items: list[extract.Item] = []
    set_aside, seen, lines_of = [], {}, {}
    for number, row in lines:
        path = os.path.abspath(disk.inside(root, row["clip"].replace("\\", "/")))
        inside = path.startswith(os.path.join(os.path.abspath(root), ""))
        id = f"{row['subject']}/{row['clip']}"
        if not all(row[column] for column in ("subject", "clip", "label")):
            reason = "the subject, the clip or the label is empty"
        elif path in seen:
            reason = f"its clip stands on line {seen[path]} already; only that row counts"
        elif not inside or not os.path.exists(path):
            reason = f"no such folder of frames or video below {root}: {row['clip']}"
        else:
            seen[path], lines_of[id], reason = number, number, ""
            if os.path.isdir(path):
                folders[id] = _images(path)
                reason = _unclear(folders[id])
            else:
                items.append(extract.Item(id, path, seconds=float("inf")))
        if reason:
            set_aside.append(SetAside(id, f"line {number}: {reason}"))
        else:
            rows.append(_as_sheet(row))

    # ----- videos -----
    rates = {}
    extracted = extract.extract(
        items, cache=os.path.join(cache, "videos"), detector=detector, progress=progress
    )
    for each in extracted:
        if len(each.verdict.shots) == 1 and each.clips:
            folders[each.item.id] = each.clips[0].frames
            rates[each.item.id] = each.clips[0].fps
        else:
            reason = f"{len(each.verdict.shots)} shots, a clip has no hard cut"
            if len(each.verdict.shots) < 2:
                reason = each.set_aside[0].reason
            line = lines_of[each.item.id]
            set_aside.append(SetAside(each.item.id, f"line {line}: {reason}"))

    refused = {each.id for each in set_aside}
    rows = [row for row in rows if f"{row['subject']}/{row['filename']}" not in refused]
    if not rows:
        raise UserError(
            "[target=csv]: none of the {count} rows of {sheet} can be used (as: {reason}); give "
            "the folder around the clips as [root]",
            count=len(lines),
            sheet=sheet,
            reason=set_aside[0].reason if set_aside else "there is none below the headings",
        )

    # ----- clips -----
    classes = dict.fromkeys(sorted({micro.emotion(row) for row in rows}))
    found = micro.read(
        micro.Traits("csv", classes, None, fps=0, rebases=True, ends=False),
        rows,
        folders,
        sheet=sheet,
        cache=cache,
        detector=detector,
        exact={item.id for item in items},
        progress=progress,
    )
    rates |= {f"{row['subject']}/{row['filename']}": _rate(row) for row in rows if _rate(row)}
    for each in found.set_aside:
        set_aside.append(SetAside(each.id, f"line {lines_of[each.id]}: {each.reason}"))
    partly, lacking = extract.told(extracted)
    notes = [*found.notes, *disk.notes_of(repairs), *partly]
    if items:
        notes.append(f"{VIDEOS}: {len(items)}")
    return dataclasses.replace(
        found,
        clips=tuple(dataclasses.replace(c, fps=rates.get(c.id, 0.0)) for c in found.clips),
        set_aside=tuple(sorted(set_aside, key=lambda each: each.id)),
        notes=tuple(notes),
        repairs=(*found.repairs, *repairs, *lacking),
    )


def _rate(row: dict[str, str]) -> float:
    """Frames per second that a row tells, 0 if it tells none."""
    text = row["fps"].replace(",", ".")
    return float(text) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", text) else 0.0


# ----- frames -------------------------------------------------------------------------------------


def _images(path: str) -> ImageFolder:
    folder = disk.innermost(path)
    return ImageFolder(folder, tuple(sorted(disk.files(folder, IMAGE_SUFFIXES), key=frame_order)))


def _unclear(images: ImageFolder) -> str:
    """Why nobody can say which frame has which number; empty if it is clear."""
    by_number = collections.defaultdict(list)
    for name, number in zip(images.names, frame_numbers(images.names), strict=True):
        if number is not None:
            by_number[number].append(name)
    for number, names in by_number.items():
        if len(names) > 1:
            return (
                f"the last integer in the names of its frames is to be the frame's number, and "
                f"{number} is that of {names[0]} and {names[1]}; rename them"
            )
    return ""


# ----- the sheet ----------------------------------------------------------------------------------


def _lines(path: str) -> list[tuple[int, dict[str, str]]]:
    """The rows below the headings, each with the number of its line; empty ones are left out.

    Raises:
      UserError: the sheet cannot be read, or it lacks a column.
    """
    best, lacking = "no line has any of them", len(COLUMNS)
    for page in sheets.pages(path).values():
        for at, cells in enumerate(page):
            headings = [re.sub("[^a-z0-9]", "", cell.lower()) for cell in cells]
            missing = [column for column in COLUMNS if column not in headings]
            if not missing:
                _check_once(path, headings)
                return [
                    (number, dict(zip(headings, row, strict=True)))
                    for number, row in enumerate(page[at + 1 :], at + 2)
                    if any(row)
                ]
            if len(missing) < lacking:
                lacking, best = len(missing), f"line {at + 1} lacks {', '.join(missing)}"
    raise UserError(
        "annotation sheet {path}: expected the columns {columns}, but {found}; add them",
        path=path,
        columns=", ".join(COLUMNS),
        found=best,
    )


def _check_once(path: str, headings: Sequence[str]) -> None:
    """Raises UserError if two columns have the same heading, and it is one that is read."""
    for column in (*COLUMNS, *FURTHER):
        if headings.count(column) > 1:
            raise UserError(
                "annotation sheet {path}: {count} columns are called {column}, and only one can "
                "count; rename the others",
                path=path,
                count=headings.count(column),
                column=column,
            )


def _one_spelling(
    lines: Sequence[tuple[int, dict[str, str]]],
) -> tuple[list[tuple[int, dict[str, str]]], list[Repair]]:
    """The rows with each person spelled as on the first line that names them, and what was changed.

    Spellings that differ in letter case or blanks alone are one person: taken as two, the person
    would be in the training and in the test set of a fold.
    """
    first: dict[str, tuple[str, int]] = {}
    told, repairs = [], []
    for number, row in lines:
        subject = row["subject"]
        if row.get("dataset") and subject:
            subject = f"{row['dataset']}/{subject}"
        key = re.sub(r"\s+", "", subject).lower()
        spelled, line = first.setdefault(key, (subject, number))
        if spelled != subject:
            what = f"line {number}: {subject!r} is {spelled!r} of line {line}"
            repairs.append(Repair(f"{spelled}/{row['clip']}", SPELLED, what))
        told.append((number, row | {"subject": spelled}))
    return told, repairs


def _as_sheet(row: dict[str, str]) -> dict[str, str]:
    """A row as `micro.read` takes it."""
    return {
        "subject": row["subject"],
        "filename": row["clip"],
        "estimatedemotion": row["label"],
        "onsetframe": row["onset"],
        "apexframe": row["apex"],
        "offsetframe": row.get("offset", ""),
        "actionunits": row.get("actionunits", ""),
        "fps": row.get("fps", ""),
    }


READER = Reader(
    "csv",
    "clips of your own with a sheet",
    kind="target",
    read=read,
    takes=("annotations", "detector"),
    own=True,
)
