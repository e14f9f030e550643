"""What the macro-expression datasets have in common: seven emotions, lists of splits, and clips
that are folders of frames or videos."""

import collections
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from ma2mi_jax.clips import faces
from ma2mi_jax.clips.clip import Clip, Dataset, SetAside
from ma2mi_jax.clips.frames import ImageFolder
from ma2mi_jax.datasets.common import disk, extract
from ma2mi_jax.errors import UserError

EMOTIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
"""DFEW's labels 1 … 7. The labels of every source are in this order, so that a classifier means the
same whatever it was trained on."""

Split = Mapping[str, int]
"""A dataset's list of clips: from id to label, -1 where the label is none of the seven."""


def emotion(text: str) -> int:
    """The label of an emotion as the datasets spell it (`Happy`, `happiness`, `Anger`); -1 for any
    other word."""
    name = text.strip().lower()
    name = {"happiness": "happy", "sadness": "sad", "anger": "angry"}.get(name, name)
    return EMOTIONS.index(name) if name in EMOTIONS else -1


def by_name(found: Iterable[tuple[str, str, Split]]) -> tuple[dict[str, Split], list[str]]:
    """The lists by name, and a note if several of one name say different things.

    Those of one name are taken as one. Where they give a clip two labels, the last list counts.

    Args:
      found: of each list its name, its path for people, and what it says.
    """
    lists: dict[str, Split] = {}
    there = collections.defaultdict(list)
    for name, path, said in found:
        there[name].append((path, said))
        lists[name] = {**lists.get(name, {}), **said}
    differing = [
        f"{name} in {', '.join(path for path, _ in several)}"
        for name, several in there.items()
        if any(said != several[0][1] for _, said in several)
    ]
    told = f"lists of one name that differ, taken as one: {len(differing)}"
    return lists, [f"{told} ({disk.some(differing)})"] if differing else []


def check_split(dataset: str, split: str | None, splits: Sequence[str]) -> None:
    """Passes if no split is asked for, or one of `splits`.

    Raises:
      UserError: another split is asked for.
    """
    if split is None or split in splits:
        return
    if splits:
        raise UserError(
            "[split={split}]: [source={dataset}] has no such split; give {there}, or no [split] "
            "to use all clips",
            split=split,
            dataset=dataset,
            there=disk.some(splits, 12),
        )
    raise UserError(
        "[split={split}]: no list of a split lies beside the clips of [source={dataset}]; unpack "
        "the lists there, or give no [split] to use all clips",
        split=split,
        dataset=dataset,
    )


def places(frames: str | None, videos: str | None) -> list[str]:
    """The note on the folders in which clips were met, where there are any: forms differ."""
    met = {"frames": frames, "videos": videos}
    told = [f"{what} in {os.path.basename(place)}" for what, place in met.items() if place]
    return [f"read: {', '.join(told)}"]


def dataset(
    name: str,
    folders: Mapping[str, ImageFolder],
    *,
    labels: Mapping[str, int],
    splits: Mapping[str, Split],
    split: str | None,
    published: int,
    notes: Sequence[str] = (),
    videos: Mapping[str, str] | None = None,
    cache: str = "",
    detector: faces.Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The dataset called `name`, of all its clips or those of one split.

    A clip that has no two frames in its folder is read from its video: this is cut into shots,
    cropped by one face box for each shot, and kept as frames.

    Args:
      name: as a person asks for it.
      folders: the clips on the disk, by id.
      labels: of the clips, where they are known without the lists. A list overrules them.
      splits: the lists by name.
      split: the one to use; None is all clips.
      published: number of clips in the whole dataset.
      notes: what the reader has to tell; it comes last.
      videos: the paths of those on the disk, by id; then `cache` must be given.
      cache: folder for the frames of videos.
      detector: finds the faces in videos; None is `faces.haar()`.
      progress: called as progress(done, total) with the videos that are decoded.

    Raises:
      UserError: there is no such split, no clip can be used, or the cache cannot be written.
    """
    videos = videos or {}
    check_split(name, split, sorted(splits))

    # ----- labels -----
    lists = list(splits.values()) if split is None else [splits[split]]
    labels, relabelled, absent = dict(labels), set(), set()
    for each in lists:
        for id, label in each.items():
            if id not in folders and id not in videos:
                absent.add(id)
            elif label >= 0 and labels.setdefault(id, label) != label:
                relabelled.add(id)
                labels[id] = label

    # ----- clips -----
    present = folders.keys() | videos.keys()
    used = {id for id in present if split is None or id in splits[split]}
    usable = {id for id in used if len(folders.get(id, ())) >= 2}
    clips = [Clip(id, folders[id], label=labels.get(id, -1)) for id in usable]
    items = [extract.Item(id, path) for id, path in sorted(videos.items()) if id in used - usable]
    extracted = (
        extract.extract(
            items,
            cache=os.path.join(cache, "videos"),
            detector=detector,
            progress=progress,
        )
        if items
        else []
    )
    clips += [
        dataclasses.replace(clip, label=labels.get(each.item.id, -1))
        for each in extracted
        for clip in each.clips
    ]
    clips.sort(key=lambda clip: clip.id)
    set_aside = [refused for each in extracted for refused in each.set_aside]
    set_aside += [
        SetAside(id, f"a pair needs two frames, its folder holds {len(folders[id])}")
        for id in used - usable - videos.keys()
    ]
    set_aside += [
        SetAside(
            id,
            "in the dataset's lists, but there is no such folder of frames"
            + (" and no such video" if videos else ""),
        )
        for id in absent
    ]
    if not clips:
        raise UserError(
            "[source={name}]: a clip needs two frames, and none of {count} has them; unpack the "
            "dataset again or give another [root]",
            name=name,
            count=len(used),
        )

    # ----- what is told -----
    told = [f"split {split}: {len(used)} of {len(present)} clips"] if split else []
    if not split and len(present) != published:
        told.append(f"{len(present)} clips on disk, published {published}")
    if decoded := sum(bool(each.clips) for each in extracted):
        told.append(f"clips decoded from their videos and cropped: {decoded}")
    if unlabelled := sum(clip.label < 0 for clip in clips):
        told.append(f"clips without a label: {unlabelled}")
    if relabelled:
        told.append(
            "clips whose label differs between list and list, or list and folder: "
            f"{len(relabelled)} ({disk.some(sorted(relabelled))})"
        )
    partly, repairs = extract.told(extracted)
    set_aside.sort(key=lambda each: each.id)
    return Dataset(
        name,
        tuple(clips),
        EMOTIONS,
        tuple(set_aside),
        (*told, *partly, *notes),
        repairs=tuple(repairs),
    )
