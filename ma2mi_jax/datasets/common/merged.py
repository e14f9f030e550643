"""Several micro-expression datasets at once: other names for the classes, datasets joined into one,
and the classes that they share."""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.datasets.common.reader import ClassSet
from ma2mi_jax.errors import UserError

THREE = ("negative", "positive", "surprise")
_NEGATIVE = ("negative", "anger", "contempt", "disgust", "fear", "repression", "sadness")
THREE_OF = {
    **dict.fromkeys(_NEGATIVE, "negative"),
    **dict.fromkeys(("positive", "happiness"), "positive"),
    "surprise": "surprise",
}
"""The three classes of MEGC2019 and of SMIC, by the emotions of the other datasets. The class
`others` may hold any emotion, so it belongs to none of the three."""


def three(published: Mapping[str, int | None]) -> ClassSet:
    """The class set of THREE for a dataset of these emotions, of which `others` is left out."""
    kept = {emotion: n for emotion, n in published.items() if emotion in THREE_OF}
    return ClassSet(kept, {emotion: THREE_OF[emotion] for emotion in kept})


def relabelled(dataset: Dataset, mapping: Mapping[str, str], classes: Sequence[str]) -> Dataset:
    """`dataset` with other classes: a clip of class c is now of class `mapping[c]`.

    A clip is left out if its class is no key of `mapping`, or if it has none. A note tells how many
    there were of each class. What the reader told (notes, repairs, what was set aside) stays, also
    about clips that are left out.

    Args:
      mapping: from old to new classes.
      classes: the new classes, in their order.
    """
    names = dict(enumerate(dataset.classes))
    kept, left_out = [], collections.Counter()
    for clip in dataset.clips:
        name = names.get(clip.label)
        if name in mapping:
            kept.append(dataclasses.replace(clip, label=classes.index(mapping[name])))
        else:
            left_out[name or "no class"] += 1

    notes = dataset.notes
    if left_out:
        told = ", ".join(f"{name} {count}" for name, count in sorted(left_out.items()))
        others = f"clips of other classes than {', '.join(classes)}, left out"
        notes = (*notes, f"{others}: {left_out.total()} ({told})")
    return dataclasses.replace(dataset, clips=tuple(kept), classes=tuple(classes), notes=notes)


def joined(name: str, parts: Sequence[Dataset]) -> Dataset:
    """One dataset called `name` that holds all clips of `parts`.

    The ids of clips and subjects get the name of their dataset in front (`casme2/sub01/EP02_01f` of
    `casme2/sub01`), because the `01` of two datasets are two people. So do notes, repairs,
    annotations and what was set aside.

    Raises:
      ValueError: the classes of the parts differ, or two parts have the same name.
    """
    same_classes = len({part.classes for part in parts}) == 1
    if not same_classes or len({part.name for part in parts}) != len(parts):
        found = [(part.name, part.classes) for part in parts]
        raise ValueError(f"expected datasets of the same classes and of different names: {found}")

    def prefixed(records: str, *fields: str) -> tuple:
        """The records of all parts, with the name of the part in front of these fields."""
        return tuple(
            dataclasses.replace(
                each, **{field: f"{part.name}/{getattr(each, field)}" for field in fields}
            )
            for part in parts
            for each in getattr(part, records)
        )

    return Dataset(
        name,
        tuple(sorted(prefixed("clips", "id", "subject"), key=lambda clip: clip.id)),
        parts[0].classes,
        tuple(sorted(prefixed("set_aside", "id"), key=lambda each: each.id)),
        tuple(f"{part.name}: {note}" for part in parts for note in part.notes),
        ", ".join(f"{part.name}/{part.annotations}" for part in parts if part.annotations),
        prefixed("repairs", "id"),
        next((part.detector for part in parts if part.detector), ""),
    )


class Shared(NamedTuple):
    """Several datasets as one, in the classes that they share.

    Attributes:
      dataset: as `joined` makes it.
      class_of: for each dataset by name, the class of each of its own classes; those that are left
        out are no keys.
    """

    dataset: Dataset
    class_of: dict[str, dict[str, str]]


def shared(parts: Sequence[Dataset]) -> Shared:
    """All `parts` as one dataset, in the classes of which each part has clips.

    The classes are in the order of the first part's. Two classes are the same if they have the same
    name. If one part has the three classes of MEGC2019, the emotions of the others are counted
    among these.

    Raises:
      UserError: a subject is in two parts (a composite holds the subjects of its parts), or fewer
        than two classes are shared.
    """
    for a, b in itertools.combinations(parts, 2):
        if both := sorted(_people(a) & _people(b)):
            raise UserError(
                "{b} beside {a}: {count} of its subjects are in {a} too (for example {subject}), "
                "but nobody may be on both sides; leave one of the two out",
                count=len(both),
                subject=both[0],
                a=a.name,
                b=b.name,
            )

    # ----- the classes -----
    as_three = any(set(part.classes) == set(THREE) for part in parts)
    class_of = {
        part.name: {
            own: THREE_OF[own] if as_three else own
            for own in part.classes
            if own in THREE_OF or not as_three
        }
        for part in parts
    }
    shown = [
        {class_of[part.name].get(part.classes[c.label]) for c in part.clips if c.label >= 0}
        for part in parts
    ]
    order = THREE if as_three else parts[0].classes
    classes = [name for name in order if all(name in each for each in shown)]
    if len(classes) < 2:
        raise UserError(
            "{names}: expected two classes or more of which each dataset has clips; found {found} "
            "({there}); give other datasets",
            names=", ".join(part.name for part in parts),
            found=", ".join(classes) or "none",
            there="; ".join(f"{part.name}: {', '.join(part.classes)}" for part in parts),
        )

    # ----- the clips in them -----
    class_of = {
        name: {own: new for own, new in of.items() if new in classes}
        for name, of in class_of.items()
    }
    kept = [relabelled(part, class_of[part.name], classes) for part in parts]
    return Shared(joined("+".join(class_of), kept), class_of)


def _people(dataset: Dataset) -> set[str]:
    """The subjects with the name of their dataset in front, as `joined` spells them."""
    return {
        clip.subject if "/" in clip.subject else f"{dataset.name}/{clip.subject}"
        for clip in dataset.clips
    }
