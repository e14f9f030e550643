"""What the macro-expression sets have in common: the seven emotions, lists of splits, and clips made of folders of frames."""

from collections.abc import Mapping, Sequence

from ma2mi_jax.clips.clip import Clip, Dataset, SetAside
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk
from ma2mi_jax.errors import UserError

EMOTIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
"""DFEW's 1 ... 7. Every source's labels are in this order, so that a classifier means the same whatever it was trained on."""

Split = Mapping[str, int]
"""A dataset's list of clips: from id to label, -1 where that is none of the seven."""


def emotion(text: str) -> int:
    """The label of an emotion as the datasets spell it (`Happy`, `happiness`, `Anger`), -1 for any other word."""
    name = text.strip().lower()
    name = {"happiness": "happy", "sadness": "sad", "anger": "angry"}.get(name, name)
    return EMOTIONS.index(name) if name in EMOTIONS else -1


def check_split(dataset: str, split: str | None, splits: Sequence[str]) -> None:
    """Passes if no split is asked for, or one of `splits`.

    Raises:
      UserError: another one.
    """
    if split is None or split in splits:
        return
    there = (
        f"there are {disk.some(splits, 12)}"
        if splits
        else "no list of a split lies beside the clips"
    )
    raise UserError(
        f"--source={dataset}: no split {split!r}; {there}; ask for one that is there, or for none to use all clips"
    )


def source(
    dataset: str,
    folders: Mapping[str, ImageFolder],
    *,
    labels: Mapping[str, int],
    splits: Mapping[str, Split],
    split: str | None,
    published: int,
    notes: Sequence[str] = (),
) -> Dataset:
    """The clips of `folders`, or those of one split.

    Args:
      folders: by clip id.
      labels: of clips, where they are known without the lists; where both are, the list counts.
      published: number of clips in the whole dataset.

    Raises:
      UserError: there is no such split, or no clip can be used.
    """
    check_split(dataset, split, sorted(splits))
    lists = list(splits.values()) if split is None else [splits[split]]
    labels, relabelled, absent = dict(labels), set(), set()
    for each in lists:
        for id, label in each.items():
            if id not in folders:
                absent.add(id)
            elif label >= 0 and labels.setdefault(id, label) != label:
                relabelled.add(id)
                labels[id] = label
    used = (
        folders
        if split is None
        else {id: frames for id, frames in folders.items() if id in splits[split]}
    )
    clips = [
        Clip(id, frames, label=labels.get(id, -1))
        for id, frames in sorted(used.items())
        if len(frames) >= 2
    ]
    set_aside = [
        SetAside(id, f"a pair needs two frames, its folder holds {len(f)}")
        for id, f in used.items()
        if len(f) < 2
    ]
    set_aside += [
        SetAside(id, "in the dataset's lists, but there is no such folder of frames")
        for id in absent
    ]
    if not clips:
        raise UserError(
            f"--source={dataset}: none of {len(used)} clips has two frames; unpack the dataset anew or give --data-root=FOLDER"
        )
    told = [f"split {split}: {len(used)} of {len(folders)} clips"] if split else []
    if not split and len(folders) != published:
        told.append(f"{len(folders)} clips on disk, published {published}")
    if unlabelled := sum(clip.label < 0 for clip in clips):
        told.append(f"clips without a label: {unlabelled}")
    if relabelled:
        told.append(
            f"clips whose label differs between list and list, or list and folder: {len(relabelled)} ({disk.some(sorted(relabelled))})"
        )
    return Dataset(
        dataset,
        tuple(clips),
        EMOTIONS,
        tuple(sorted(set_aside, key=lambda s: s.id)),
        (*told, *notes),
    )
