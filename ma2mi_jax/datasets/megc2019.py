"""The composite of MEGC2019: SMIC, CASME II and SAMM in three classes, 442 clips of 68 subjects, one of whom is left out at a time."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets import casme2, samm, smic
from ma2mi_jax.datasets import prepared as store
from ma2mi_jax.datasets.common import disk, merged
from ma2mi_jax.datasets.common.reader import Reader
from ma2mi_jax.errors import UserError

CLASSES = {  # the emotions that are taken, with their numbers in the sheets
    "casme2": {"happiness": 32, "disgust": 63, "repression": 27, "surprise": 25},
    "samm": {
        "happiness": 26,
        "anger": 57,
        "contempt": 12,
        "disgust": 9,
        "fear": 8,
        "sadness": 6,
        "surprise": 15,
    },
}
WITHOUT = (
    "sub04/EP12_01f",
    "sub05/EP09_05f",
)  # of CASME II: a row without an apex, and one whose onset is its apex
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
) -> Dataset:
    """The composite of the datasets in the folders `casme2`, `samm` and, if it is there, `smic` of `root`.

    Of CASME II the sheet of 2014 is taken if it is there: MEGC2019 is by that.

    Args:
      root: each folder in it is as for the dataset's own reader.
      cache: folder for what is found out about the clips; each dataset has its own in it, the same as when it is read alone.
      detector: finds the faces in raw frames; None is `faces.haar()`.
      progress: called as progress(done, total), for one dataset after the other.

    Raises:
      UserError: CASME II or SAMM is not there or holds prepared data, or one of the datasets cannot be read.
    """
    places = {name: os.path.join(root, name) for name in PUBLISHED}
    there = [name for name, place in places.items() if os.path.isdir(place)]
    if lacking := [name for name in ("casme2", "samm") if name not in there]:
        raise UserError(
            f"--target=megc2019: looked for the datasets' folders casme2, samm and, if you have it, smic in {root}, found no "
            f"{' and no '.join(lacking)}; put them there or give --data-root=FOLDER"
        )
    if prepared := [places[name] for name in there if store.is_prepared(places[name])]:
        raise UserError(
            f"--target=megc2019: {prepared[0]} holds prepared data, in which classes of the composite may be missing; give the datasets as "
            "their authors ship them, or prepare the composite by experiments/prepare.py --target=megc2019"
        )

    def own(name: str) -> dict:
        return {
            "root": places[name],
            "cache": os.path.join(cache, name),
            "detector": detector,
            "progress": progress,
        }

    sheet = _sheet_of_2014(places["casme2"])
    parts = [
        _without(
            casme2.read(**own("casme2"), annotations=sheet, classes=CLASSES["casme2"]), WITHOUT
        ),
        samm.read(**own("samm"), classes=CLASSES["samm"]),
        *([smic.read(**own("smic"))] if "smic" in there else []),
    ]
    parts = [merged.relabelled(part, merged.THREE_OF, merged.THREE) for part in parts]
    notes = [] if "smic" in there else [f"no folder smic in {root}: the composite is without it"]
    if not sheet:
        notes.append(
            "no sheet CASME2-coding-2014… of CASME II: MEGC2019 is by that; that of 2019 has three more clips of surprise"
        )
    composite = merged.joined("megc2019", parts)
    return dataclasses.replace(composite, notes=(*notes, *composite.notes, *_differences(parts)))


def _sheet_of_2014(folder: str) -> str | None:
    found = [
        path
        for pattern in ("", "*/")
        for path in pathlib.Path(folder).glob(f"{pattern}CASME2-coding-2014*.xlsx")
    ]
    return str(found[0]) if found else None


def _without(source: Dataset, ids: Sequence[str]) -> Dataset:
    """`source` without these clips, and a note on those that it had."""
    kept = tuple(clip for clip in source.clips if clip.id not in ids)
    gone = [clip.id for clip in source.clips if clip.id in ids]
    notes = (f"clips that MEGC2019 leaves out: {len(gone)} ({disk.some(gone)})",) if gone else ()
    return dataclasses.replace(source, clips=kept, notes=(*source.notes, *notes))


def _differences(parts: Sequence[Dataset]) -> tuple[str, ...]:
    """One line if the parts do not have as many clips and subjects as published, 442 and 68 in all."""
    published = {
        (part.name, name): n
        for part in parts
        for name, n in zip(merged.THREE, PUBLISHED[part.name][0], strict=True)
    }
    counts = collections.Counter(
        (part.name, merged.THREE[clip.label]) for part in parts for clip in part.clips
    )
    differing = [
        f"{part} {name} {counts[part, name]} (published {n})"
        for (part, name), n in published.items()
        if counts[part, name] != n
    ]
    subjects = {part.name: len({clip.subject for clip in part.clips}) for part in parts}
    differing += [
        f"{part} subjects {n} (published {PUBLISHED[part][1]})"
        for part, n in subjects.items()
        if n != PUBLISHED[part][1]
    ]
    if not differing and len(parts) == len(PUBLISHED):
        return ()
    total = f"N = {counts.total()} of {sum(subjects.values())} subjects, published 442 of 68"
    return (f"{total}; parts that differ: {', '.join(differing)}" if differing else total,)


READER = Reader(
    "megc2019",
    "MEGC2019",
    kind="target",
    read=read,
    takes=("detector",),
    published=sum(sum(clips) for clips, _ in PUBLISHED.values()),
    parts=tuple(PUBLISHED),
)
