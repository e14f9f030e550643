"""What a reader file says about its dataset: names, kind, and what a person may choose.

Every reader file ends with one `READER = Reader(...)`, and `registry.READERS` lists them. All that
the commands know about a dataset's name is derived from these records: the choices and the help of
the flags, the folder under data/, the lists in messages, the paper's protocol.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

from ma2mi_jax.clips.clip import Dataset

Kind = Literal["source", "target"]
"""Networks are pre-trained on a source, which holds macro-expressions, and fine-tuned on a target,
which holds micro-expressions."""


@dataclasses.dataclass(frozen=True)
class ClassSet:
    """Classes of which each holds one emotion of the sheet or several.

    Attributes:
      published: the emotions that are read, each with its number of clips; None where that is not
        known. Clips of other emotions are left out.
      class_of: the class of each of them.
    """

    published: Mapping[str, int | None]
    class_of: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in their order."""
        return tuple(sorted(set(self.class_of.values())))


@dataclasses.dataclass(frozen=True)
class Reader:
    """One dataset.

    Attributes:
      name: what a person types. The dataset lies in `data/<name>` unless its root is given.
      title: its name for people, as its authors write it.
      kind: whether it is a source or a target.
      read: called as `read(root, cache=..., progress=..., **chosen)`; returns the `Dataset`.
      takes: which fields of `DatasetSpec` are in `chosen`, under their own names. "detector" is
        handed over as a function that finds faces, and "classes" as the emotions of a class set
        with their numbers of clips, or None for the reader's own. A reader that takes "split" has
        splits, one that takes "annotations" has a sheet.
      aliases: other spellings of `name`.
      labelled: whether the clips have labels.
      wrong_labels: share of labels that are made wrong unless a person chooses a share, in [0, 1].
        Real labels are as wrong as they are, so 0 is theirs.
      published: number of clips: of a source as published, of a target as evaluated in the paper.
        None where there is no such number.
      protocol: the paper's for this target: "loso" leaves one subject out at a time, "kfold" makes
        `k` folds of subjects.
      k: number of folds of "kfold".
      class_sets: by number of classes; None stands for what is read if no number is chosen.
      drawn: whether a program draws the faces, so that nothing lies on the disk. `read` then takes
        `size` too: the side of the frames, in pixels.
      own: whether they are a person's own clips, which the folder tells apart and not the name.
      parts: names of the datasets that this one is made of. They lie in folders of these names.
    """

    name: str
    title: str
    kind: Kind
    read: Callable[..., Dataset]
    takes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    labelled: bool = True
    wrong_labels: float = 0.0
    published: int | None = None
    protocol: Literal["loso", "kfold"] = "loso"
    k: int = 5
    class_sets: Mapping[int, ClassSet | None] = dataclasses.field(default_factory=dict)
    drawn: bool = False
    own: bool = False
    parts: tuple[str, ...] = ()
