"""What a clip is, and what every dataset reader returns: plain records that know nothing of models.

A reader is a function `read(root, ...) -> Dataset`. Nothing here holds pixels: `frames.py` fetches those.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from ma2mi_jax import files
from ma2mi_jax.clips.frames import ArrayFrames, Box, Frames


@dataclasses.dataclass(frozen=True)
class Clip:
    """One video of one face.

    Macro-expression clips (pre-training) need only `id` and `frames`; micro-expression clips also carry the subject,
    the label and the positions of onset and apex.

    Attributes:
      id: unique in its source, e.g. `Action/Happy/0267` or `sub01/EP02_01f`.
      frames: where the pictures lie; `len(frames)` is their number.
      box: the face crop, the same for all frames so that motion survives; None where the frames are already cropped.
      subject: the person, in the dataset's own spelling (`sub01`, `006`, `S13`); leave-one-subject-out splits on it.
      label: index into `Dataset.classes`, -1 where there is none.
      onset, apex, offset: positions in `frames` (0-based, not the numbers of the annotation sheet), -1 where there is none.
      fps: frames per second of the recording, 0 where unknown.
      action_units: FACS units as the annotation gives them, free text, never parsed to integers.
    """

    id: str
    frames: Frames
    box: Box | None = None
    subject: str = ""
    label: int = -1
    onset: int = -1
    apex: int = -1
    offset: int = -1
    fps: float = 0.0
    action_units: str = ""


@dataclasses.dataclass(frozen=True)
class SetAside:
    """A clip that cannot be used, and why, in words a person can act on."""

    id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Repair:
    """Something in a clip's record that was not as its dataset has it: a `kind` that repairs share, and what happened to this clip."""

    id: str
    kind: str
    what: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a reader found: the usable clips, the others with their reasons, and whatever was repaired.

    Attributes:
      name: the dataset, as spelled on the command line (`synthetic`, `folder`, `casme2`, ...).
      clips: in a fixed order (sorted by id), so that an index means the same clip on every machine.
      classes: label names; `()` where the source has no labels.
      set_aside: clips on disk or in the sheet that are not in `clips`.
      notes: one line for each kind of repair or irregularity that was met, with its count.
      annotations: file name of the annotation sheet, `""` where there is none.
      repairs: each single repair behind the notes; a clip may have several.
    """

    name: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()
    annotations: str = ""
    repairs: tuple[Repair, ...] = ()


def fingerprint(clips: Sequence[Clip]) -> str:
    """Short hash of which clips there are and of what is known about each: a resumed run must see the same.

    The face box is part of it, and of drawn faces the name of the film, in which the seed and the version of the generator are.
    """
    films = (
        os.path.basename(c.frames.path) if isinstance(c.frames, ArrayFrames) else "" for c in clips
    )
    known = (
        f"{c.id} {len(c.frames)} {c.subject} {c.label} {c.onset} {c.apex} {c.box}" for c in clips
    )
    text = "\n".join(map(" ".join, zip(known, films, strict=True)))
    return files.fingerprint([text])


def mislabelled(clips: Sequence[Clip], classes: int, share: float, seed: int) -> tuple[Clip, ...]:
    """The clips, of which `share`, drawn by `seed`, have another label than their own: how much does MAER hang on its labels?"""
    rng = np.random.default_rng(seed)
    changed = list(clips)
    for index in rng.permutation(len(clips))[: round(share * len(clips))]:
        label = (clips[index].label + rng.integers(1, classes)) % classes
        changed[index] = dataclasses.replace(clips[index], label=int(label))
    return tuple(changed)
