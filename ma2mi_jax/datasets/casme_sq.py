"""The micro-expressions of CAS(ME)² (Qu et al., "CAS(ME)²: A Database for Spontaneous
Macro-Expression and Micro-Expression Spotting and Recognition", IEEE Transactions on Affective
Computing 2018, doi:10.1109/TAFFC.2017.2654440): 22 subjects, 30 frames a second, 640 x 480.

  cropped/15/disgust1_1/img557.jpg                 an expression, cropped
  selectedpic/s15/disgust1_1/img557.jpg            an expression, raw
  rawpic/s15/15_0101disgustingteeth/img557.jpg     a whole recording, raw
  CAS(ME)^2code_final.xlsx                         three pages without headings: the expressions,
                                                   the numbers of subjects, the codes of recordings
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk, listing, merged, micro, recordings, sheets
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError

SHOWN = (
    "cropped/15/disgust1_1/img1.jpg, selectedpic/s15/disgust1_1/img1.jpg or "
    "rawpic/s15/<recording>/img1.jpg"
)
PLACES = ("cropped", "selectedpic", "rawpic")
CLASSES = dict.fromkeys(("negative", "positive", "surprise", "others"))
TRAITS = micro.Traits("casme_sq", CLASSES, "s{:02d}", fps=30)


class Book(NamedTuple):
    """What the sheet says.

    Attributes:
      rows: of micro-expressions, as from `sheets.read`; subjects as the page numbers them.
      macro: number of rows of macro-expressions.
      subjects: from the page's numbers of subjects to those of the folders.
      codes: from the name of a film (`disgust1`) to its code in the names of recordings (`0101`).
    """

    rows: list[dict[str, str]]
    macro: int
    subjects: dict[str, str]
    codes: dict[str, str]


def read(
    root: str,
    *,
    cache: str,
    annotations: str | None = None,
    classes: Mapping[str, int | None] | None = None,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The clips of micro-expressions, in the classes of the sheet's estimated emotion.

    Cropped frames are read if there are any, otherwise those of the expressions, otherwise those
    of the recordings, from which the expressions are cut. An offset of 0 means that none is given.

    The arguments and the errors are those of `casme2.read`.
    """
    for place in filter(None, (disk.find(root, name) for name in PLACES)):
        on_disk = listing.clip_folders(place, 2, cache=cache)
        if any(map(len, on_disk.values())):
            break
    else:
        raise disk.not_found("target", TRAITS.name, root, SHOWN)

    sheet = micro.find_sheet(TRAITS.name, root, place, ".*code_?final", annotations)
    book = _book(sheet)
    known = book.subjects
    rows = [row | {"subject": known.get(row["subject"], row["subject"])} for row in book.rows]
    folders, cuts = _clips(on_disk, rows, book.codes)
    found = micro.read(
        TRAITS,
        rows,
        folders,
        sheet=sheet,
        cache=cache,
        classes=classes,
        detector=detector,
        progress=progress,
    )

    notes = [f"frames read from {os.path.basename(place)}"]
    if cuts:
        notes.append(f"clips cut from whole recordings: {cuts}")
    if not known:
        notes.append("the sheet has no page of subjects' numbers: taken as those of the folders")
    if book.macro:
        notes.append(f"rows of macro-expressions, which are left out: {book.macro}")
    return dataclasses.replace(found, notes=(*notes, *found.notes))


def _clips(
    on_disk: dict[str, ImageFolder], rows: Sequence[dict[str, str]], codes: dict[str, str]
) -> tuple[dict[str, ImageFolder], int]:
    """The clips of the rows by id, and how many of them are cut from recordings."""
    places = {}
    for path, images in on_disk.items():
        subject, name = path.split("/")
        key = TRAITS.subject_name(subject), name.lower()
        if len(images) or key not in places:
            places[key] = images
    clips, cuts = {}, 0
    for row in rows:
        subject, name = TRAITS.subject_name(row["subject"]), row["filename"]
        images = places.get((subject, name.lower()))
        code = codes.get(name.rpartition("_")[0].lower())
        if images is None and code:
            recording = rf"[0-9]+_{code}(?![0-9]).*"
            images = next(
                (
                    found
                    for key, found in places.items()
                    if key[0] == subject and re.fullmatch(recording, key[1])
                ),
                None,
            )
            if images is not None:
                images, cuts = recordings.cut(images, row, TRAITS.fps), cuts + 1
        if images is not None:
            clips[f"{subject}/{name}"] = images
    return clips, cuts


# ----- the sheet ----------------------------------------------------------------------------------


def _book(path: str) -> Book:
    """The three pages, each known by what stands in its cells, in whatever order they are.

    Raises:
      UserError: the book cannot be read, or no row says that it is a micro-expression.
    """
    rows, macro, subjects, codes = [], 0, {}, {}
    for page in sheets.pages(path).values():
        for row in page:
            cells = [cell for cell in row if cell]
            kind = next((i for i, cell in enumerate(row) if "-expression" in cell.lower()), None)
            if kind is not None and kind >= 7:
                if row[kind].lower().startswith("micro"):
                    rows.append(_row(row[kind - 7 : kind]))
                else:
                    macro += 1
            elif len(cells) == 3 and re.fullmatch("s[0-9]+", cells[1].lower()):
                subjects[cells[2]] = cells[1]
            elif len(cells) == 2 and re.fullmatch("[a-z]+[0-9]+", cells[1].lower()):
                codes[cells[1].lower()] = cells[0].zfill(4)  # a number loses its zeros in front
    if not rows:
        raise UserError(
            "annotation sheet {path}: looked for rows that say micro-expression, found none; give "
            "the authors' own sheet",
            path=path,
        )
    return Book(rows, macro, subjects, codes)


def _row(cells: Sequence[str]) -> dict[str, str]:
    subject, name, onset, apex, offset, units, emotion = cells
    return {
        "subject": subject,
        "filename": name,
        "onsetframe": onset,
        "apexframe": apex,
        "offsetframe": "" if offset == "0" else offset,
        "actionunits": units,
        "estimatedemotion": emotion,
    }


READER = Reader(
    "casme_sq",
    "CAS(ME)²",
    kind="target",
    read=read,
    takes=("annotations", "classes", "detector"),
    class_sets={3: merged.three(CLASSES), 4: None},
    aliases=("casmesq",),
    published=57,
)
