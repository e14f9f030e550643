"""The composite of MEGC2019 (See et al., "MEGC 2019 – The Second Facial Micro-Expressions Grand
Challenge", FG 2019): SMIC, CASME II and SAMM in three classes, 442 clips of 68 subjects, one of
whom is left out at a time."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Sequence

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets import casme2, prepared, samm, smic
from ma2mi_jax.datasets.common import disk, merged
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError

WITHOUT = ("sub04/EP12_01f", "sub05/EP09_05f")
"""Clips of CASME II that are left out: one has no apex, and the onset of the other is its apex."""

PUBLISHED = {  # clips in the order of `merged.THREE`, and subjects
    "casme2": ((88, 32, 25), 24),
    "samm": ((92, 26, 15), 28),
    "smic": ((70, 51, 43), 16),
}


def read(
    root: str,
    *,
    cache: str,
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
    without: Collection[str] = (),
) -> Dataset:
    """The composite of the datasets in the folders `casme2`, `samm` and `smic`.

    MEGC2019 goes by CASME II's sheet of 2014. So that is read if it is there.

    Args:
      root: the folder around these. Each of them is as for the dataset's own reader.
      cache: folder for what is found out about the clips. Each dataset has a folder of its own in
        it, the same as when it is read alone.
      detector: finds the faces in raw frames; None is `faces.haar()`.
      progress: called as progress(done, total), for one dataset after the other.
      without: parts that are left out, whether they are there or not. They are told.

    Raises:
      UserError: a part is not there, a folder holds prepared data, or one of the datasets cannot be
        read.
    """
    places = _places(root, without)

    def own(name: str) -> dict:
        """What the reader of a part is given."""
        return {
            "root": places[name],
            "cache": os.path.join(cache, name),
            "detector": detector,
            "progress": progress,
        }

    parts, notes = [], [f"left out as asked: {name}" for name in without]
    if "casme2" in places:
        sheet = _sheet_of_2014(places["casme2"])
        of_casme2 = casme2.read(**own("casme2"), annotations=sheet, classes=casme2.THREE)
        parts.append(_without(of_casme2, WITHOUT))
        if not sheet:
            notes.append(
                "no sheet CASME2-coding-2014… of CASME II: MEGC2019 is by that; that of 2019 has "
                "three more clips of surprise"
            )
    if "samm" in places:
        parts.append(samm.read(**own("samm"), classes=samm.THREE))
    if "smic" in places:
        parts.append(smic.read(**own("smic")))
    parts = [merged.relabelled(part, merged.THREE_OF, merged.THREE) for part in parts]
    composite = merged.joined("megc2019", parts)
    return dataclasses.replace(composite, notes=(*notes, *composite.notes, *_differences(parts)))


def _places(root: str, without: Collection[str]) -> dict[str, str]:
    """The folders of the parts, by name, once it is sure that they can be read."""
    places = {name: os.path.join(root, name) for name in PUBLISHED if name not in without}
    if lacking := [name for name, place in places.items() if not os.path.isdir(place)]:
        raise UserError(
            "[target=megc2019]: looked for the datasets' folders {wanted} in {root}, found no "
            "{lacking}; put them there, give another [root], or name the parts that you leave out, "
            "as in [without=smic]",
            wanted=", ".join(places),
            root=root,
            lacking=" and no ".join(lacking),
        )
    for place in places.values():
        if prepared.is_prepared(place):
            raise UserError(
                "[target=megc2019]: {place} holds prepared data, in which classes of the composite "
                "may be missing; give the datasets as their authors ship them, or prepare the "
                "composite itself by the script `prepare`",
                place=place,
            )
    return places


def _sheet_of_2014(folder: str) -> str | None:
    """CASME II's sheet of 2014, in `folder` or one level deeper; None if it is not there."""
    for pattern in ("CASME2-coding-2014*.xlsx", "*/CASME2-coding-2014*.xlsx"):
        for path in pathlib.Path(folder).glob(pattern):
            return str(path)
    return None


def _without(dataset: Dataset, ids: Sequence[str]) -> Dataset:
    """`dataset` without these clips, and with a note on those that it had."""
    kept = tuple(clip for clip in dataset.clips if clip.id not in ids)
    gone = [clip.id for clip in dataset.clips if clip.id in ids]
    notes = (f"clips that MEGC2019 leaves out: {len(gone)} ({disk.some(gone)})",) if gone else ()
    return dataclasses.replace(dataset, clips=kept, notes=(*dataset.notes, *notes))


def _differences(parts: Sequence[Dataset]) -> tuple[str, ...]:
    """One line if the parts have other numbers of clips and subjects than published."""
    differing = []
    subjects = {part.name: len({clip.subject for clip in part.clips}) for part in parts}
    counts = collections.Counter(
        (part.name, merged.THREE[clip.label]) for part in parts for clip in part.clips
    )
    for part in parts:
        for name, n in zip(merged.THREE, PUBLISHED[part.name][0], strict=True):
            if counts[part.name, name] != n:
                differing.append(f"{part.name} {name} {counts[part.name, name]} (published {n})")
    for part in parts:
        n = PUBLISHED[part.name][1]
        if subjects[part.name] != n:
            differing.append(f"{part.name} subjects {subjects[part.name]} (published {n})")

    if not differing and len(parts) == len(PUBLISHED):
        return ()
    total = f"N = {counts.total()} of {sum(subjects.values())} subjects, published 442 of 68"
    return (f"{total}; parts that differ: {', '.join(differing)}" if differing else total,)


READER = Reader(
    "megc2019",
    "MEGC2019",
    kind="target",
    read=read,
    takes=("detector", "without"),
    class_sets={3: None},
    published=sum(sum(clips) for clips, _ in PUBLISHED.values()),
    parts=tuple(PUBLISHED),
)
