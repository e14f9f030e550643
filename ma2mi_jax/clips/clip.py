"""What a clip is, and what every dataset reader returns: plain records that know nothing of models.

A reader is a function `read(root, ...) -> Dataset`. Nothing here holds pixels: `frames.py` reads
those.
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

    Clips of macro-expressions, for pre-training, need only `id` and `frames`. Clips of
    micro-expressions also have the subject, the label and the positions of onset and apex.

    Attributes:
      id: unique in its dataset, e.g. `Action/Happy/0267` or `sub01/EP02_01f`.
      frames: where the pictures are; `len(frames)` is their number.
      box: the face crop, the same for all frames so that motion survives; None if the frames are
        cropped already.
      subject: the person, as the dataset spells it (`sub01`, `006`, `S13`). Leave-one-subject-out
        splits on it.
      label: index into `Dataset.classes`, -1 if there is none.
      onset, apex, offset: positions in `frames`, -1 if there is none. They count from 0 and are not
        the numbers of the annotation sheet.
      fps: frames per second of the recording, 0 if unknown.
      action_units: FACS units as the annotation gives them; free text, never parsed to integers.
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
    """Something in a clip's record that is not as its dataset has it.

    Attributes:
      id: the clip.
      kind: what was done; many repairs share it.
      what: what happened to this clip.
    """

    id: str
    kind: str
    what: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a reader found: the usable clips, the other clips with their reasons, and all repairs.

    Attributes:
      name: the dataset's short name (`synthetic`, `folder`, `casme2`, ...).
      clips: sorted by id, so that an index means the same clip on every machine.
      classes: label names; `()` if the dataset has no labels.
      set_aside: clips on disk or in the sheet that are not in `clips`.
      notes: a line for each kind of repair or irregularity, with its count.
      annotations: file name of the annotation sheet, `""` if there is none.
      repairs: each single repair behind the notes; a clip may have several.
      detector: name of what found the faces (`faces.Detector`), `""` if no frame was searched.
    """

    name: str
    clips: tuple[Clip, ...]
    classes: tuple[str, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    notes: tuple[str, ...] = ()
    annotations: str = ""
    repairs: tuple[Repair, ...] = ()
    detector: str = ""


def fingerprint(clips: Sequence[Clip]) -> str:
    """Short hash of which clips there are and of what is known about each.

    A run that is resumed must see the same clips. The face box is part of the hash. For drawn faces
    the name of the file is part of it too, because that contains the seed and the version of the
    generator.
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
    """The clips, some of them with a wrong label: how much does MAER depend on its labels?

    Args:
      classes: the number of classes.
      share: the part of the clips that get another label than their own, in [0, 1].
      seed: decides which clips, and which labels.
    """
    rng = np.random.default_rng(seed)
    changed = list(clips)
    for index in rng.permutation(len(clips))[: round(share * len(clips))]:
        label = (clips[index].label + rng.integers(1, classes)) % classes
        changed[index] = dataclasses.replace(clips[index], label=int(label))
    return tuple(changed)
