"""Several micro-expression sets at once: other names for the classes, sets joined into one, and the classes that two sets share."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.errors import UserError

THREE = ("negative", "positive", "surprise")
THREE_OF = {
    **dict.fromkeys(
        ("negative", "anger", "contempt", "disgust", "fear", "repression", "sadness"), "negative"
    ),
    **dict.fromkeys(("positive", "happiness"), "positive"),
    "surprise": "surprise",
}
"""The three classes of MEGC2019 and of SMIC, by the emotions of the others. `others` may be any, and is none of them."""


def relabelled(source: Dataset, mapping: Mapping[str, str], classes: Sequence[str]) -> Dataset:
    """`source` with the classes `classes`; a clip of class c is now of `mapping[c]`, which is one of them.

    Clips whose class is no key of `mapping`, or which have none, are left out, and a note tells how many of each. What the reader told
    (notes, repairs, set aside) stays, of these clips too.
    """
    names = dict(enumerate(source.classes))
    kept, out = [], collections.Counter()
    for clip in source.clips:
        name = names.get(clip.label)
        if name in mapping:
            kept.append(dataclasses.replace(clip, label=classes.index(mapping[name])))
        else:
            out[name or "no class"] += 1
    told = ", ".join(f"{name} {count}" for name, count in sorted(out.items()))
    notes = (
        (f"clips of other classes than {', '.join(classes)}, left out: {out.total()} ({told})",)
        if out
        else ()
    )
    return dataclasses.replace(
        source, clips=tuple(kept), classes=tuple(classes), notes=(*source.notes, *notes)
    )


def joined(name: str, sources: Sequence[Dataset]) -> Dataset:
    """One source called `name` of several, which have the same classes.

    Clips and subjects carry their dataset's name (`casme2/sub01/EP02_01f` of `casme2/sub01`): the `01` of two sets are two people. Notes,
    repairs, annotations and what was set aside carry it too.

    Raises:
      ValueError: the classes differ, or two sources have one name.
    """
    if len({source.classes for source in sources}) != 1 or len(
        {source.name for source in sources}
    ) != len(sources):
        raise ValueError(
            f"expected sources of one list of classes and different names: {[(s.name, s.classes) for s in sources]}"
        )

    def prefixed(records: str, *fields: str) -> tuple:
        """All sources' records, with the dataset's name before what these fields hold."""
        return tuple(
            dataclasses.replace(
                each, **{field: f"{source.name}/{getattr(each, field)}" for field in fields}
            )
            for source in sources
            for each in getattr(source, records)
        )

    return Dataset(
        name,
        tuple(sorted(prefixed("clips", "id", "subject"), key=lambda clip: clip.id)),
        sources[0].classes,
        tuple(sorted(prefixed("set_aside", "id"), key=lambda each: each.id)),
        tuple(f"{source.name}: {note}" for source in sources for note in source.notes),
        ", ".join(
            f"{source.name}/{source.annotations}" for source in sources if source.annotations
        ),
        prefixed("repairs", "id"),
    )


def shared(train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    """Both with the classes alone of which both have clips, in the order of `train`'s: to train on one and test on the other.

    Classes are the same if they have the same name. Where one of the two has MEGC2019's three classes, the other's emotions are counted
    among these.

    Raises:
      UserError: a subject of `test` is one of `train` (the composite holds those of its parts), or fewer than two classes are shared.
    """
    if both := sorted(_people(train) & _people(test)):
        raise UserError(
            f"--test-target={test.name}: {len(both)} of its subjects are in --target={train.name} too (as {both[0]}); give another dataset"
        )
    pair = (train, test)
    if any(set(source.classes) == set(THREE) for source in pair):
        train, test = (relabelled(source, THREE_OF, THREE) for source in pair)
    shown = [
        {source.classes[clip.label] for clip in source.clips if clip.label >= 0}
        for source in (train, test)
    ]
    classes = [name for name in train.classes if all(name in each for each in shown)]
    if len(classes) < 2:
        raise UserError(
            f"--test-target={test.name}: two classes at least must have clips in it and in --target={train.name}; found "
            f"{', '.join(classes) or 'none'}, of {', '.join(test.classes)} and {', '.join(train.classes)}; give another dataset"
        )
    same = dict(zip(classes, classes, strict=True))
    return relabelled(train, same, classes), relabelled(test, same, classes)


def _people(source: Dataset) -> set[str]:
    """Its subjects with the dataset's name, as `joined` spells them."""
    return {
        clip.subject if "/" in clip.subject else f"{source.name}/{clip.subject}"
        for clip in source.clips
    }
