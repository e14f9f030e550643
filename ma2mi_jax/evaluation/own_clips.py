"""Clips of one's own, as a person names them, made ready to be asked about: which parts of them can
be used, where onset and apex are, and what cannot be a micro-expression."""

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ma2mi_jax import files
from ma2mi_jax.clips import frames, head, pairs, spotting, video
from ma2mi_jax.clips.clip import Clip, SetAside
from ma2mi_jax.clips.spotting import Spotted
from ma2mi_jax.datasets.common import extract
from ma2mi_jax.errors import UserError

SECONDS = 5.0  # after which a video is divided, for a head wanders
LONGEST = 0.5  # seconds from onset to offset of a micro-expression, at most
UNCLEAR = 2.0  # contrast below which a change does not stand out: people who speak reach about it
STILL = 1.3  # the same in a clip that is no longer than one expression; its noise reaches 1.1
RESTLESS = 0.02  # of the crop's side; heads of drawn and of quiet real faces move by half of it

Given = str | os.PathLike | tuple[str | os.PathLike, str | os.PathLike]
"""A clip as a person names it: a video, a folder of images, or two images (onset, apex)."""


class ClipPart(NamedTuple):
    """A part of a clip to predict.

    Attributes:
      clip: the part alone.
      first: where the part begins in the clip as it was given.
      frames: (n, size, size, 3) uint8 crops.
      spotted: onset and apex in the part.
      how: onset and apex came about, in words.
      head: how the head moves from onset to apex.
      item: id of the clip as it was given, of which this is a part.
      longest: frames that an expression takes at most.
      lacks: how much of a damaged video is used, as "59 of 100 frames"; empty if it is whole.
      searched: whether onset and apex were spotted, both of them.
    """

    clip: Clip
    first: int
    frames: np.ndarray
    spotted: Spotted
    how: str
    head: head.Motion
    item: str
    longest: int
    lacks: str = ""
    searched: bool = False

    @property
    def nothing(self) -> str:
        """Why this is no micro-expression; empty if it may be one, or if a person chose it."""
        if not self.searched or len(self.frames) == 2:
            return ""
        least = UNCLEAR if len(self.frames) > self.longest + 1 else STILL
        if self.spotted.contrast < least:
            return "the change does not stand out of what else moves"
        if self.head.share > 0.5 and self.head.size > RESTLESS:
            return f"the head moves, by {self.head.size:.0%} of the crop's side, more than the face"
        return ""

    def milliseconds(self, position: int) -> float | None:
        """When a frame of the part is shown, from the start of the clip; None if nobody knows."""
        fps = self.clip.fps
        return 1000 * (self.first + position) / fps if fps else None

    @property
    def pair(self) -> np.ndarray:
        """(2, size, size, 3) uint8: the crops of onset and apex."""
        return self.frames[[self.spotted.onset, self.spotted.apex]]


def check(clips: Sequence[Given], onset: int | None, apex: int | None) -> None:
    """Whether onset and apex make sense for these clips.

    Raises:
      UserError: they do not.
    """
    given = {name: at for name, at in (("onset", onset), ("apex", apex)) if at is not None}
    if given and len(clips) > 1:
        raise UserError(
            "[onset], [apex]: they are of one clip, and {count} are given; predict that clip alone",
            count=len(clips),
        )
    if len(given) == 2 and onset >= apex:
        raise UserError(
            "[onset={onset}], [apex={apex}]: the apex comes after the onset", onset=onset, apex=apex
        )
    if given and is_pair(clips[0]):
        raise UserError(
            "[onset], [apex]: {clip} is onset and apex already; leave them out", clip=clips[0]
        )


def items_of(
    clips: Sequence[Given], whole: bool = False
) -> tuple[list[extract.Item], list[SetAside]]:
    """The clips under short ids, and those that are none; videos are not divided if `whole`."""
    items, failed = [], []
    for clip in clips:
        try:
            items.append(item_of(clip, whole))
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            failed.append(SetAside(files.printable(str(clip)), files.printable(reason)))
    ids: set[str] = set()
    named = [(item, files.printable(item.id)) for item in items]
    return [dataclasses.replace(item, id=untaken(id, ids)) for item, id in named], failed


def untaken(name: str, taken: set[str]) -> str:
    """`name`, or the first of name-2, name-3, ... that is not `taken`, which it then is."""
    names = itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2)))
    found = next(each for each in names if each not in taken)
    taken.add(found)
    return found


def is_pair(clip: Given) -> bool:
    """Whether a clip is given as onset and apex: as two paths, or as text `ONSET,APEX`."""
    if isinstance(clip, tuple):
        return True
    path = pathlib.Path(clip)
    return not path.is_dir() and not path.is_file() and str(clip).count(",") == 1


def two_paths(clip: Given) -> list[pathlib.Path]:
    """Onset and apex of a clip that `is_pair`."""
    return [pathlib.Path(p) for p in (clip if isinstance(clip, tuple) else str(clip).split(","))]


def item_of(clip: Given, whole: bool = False) -> extract.Item:
    """One clip as a person names it; ValueError says why it is none."""
    if is_pair(clip):
        pair = two_paths(clip)
        if missing := [str(path) for path in pair if not path.is_file()]:
            raise ValueError(f"no such file: {', '.join(missing)}")
        onset, apex = (str(path.resolve()) for path in pair)
        images = frames.ImageFolder("", (onset, apex))
        return extract.Item(f"{pair[0].stem}-{pair[1].stem}", apex, images)
    path = pathlib.Path(clip)
    if path.is_dir():
        names = [
            inside.name
            for inside in path.iterdir()
            if inside.suffix.lower() in frames.IMAGE_SUFFIXES and not inside.name.startswith(".")
        ]
        if not names:
            raise ValueError(
                "a folder without images; give a folder of the frames of one clip, "
                "or the video itself"
            )
        ordered = tuple(sorted(names, key=frames.frame_order))
        images = frames.ImageFolder(str(path.resolve()), ordered)
        return extract.Item(path.resolve().name, images.folder, images, math.inf)
    if not path.is_file():
        raise ValueError("no such file or folder")
    if path.suffix.lower() in frames.IMAGE_SUFFIXES and not video.has_pages(str(path)):
        raise ValueError("a single image; give two, ONSET,APEX")
    return extract.Item(path.stem, str(path.resolve()), seconds=math.inf if whole else SECONDS)


def parts_of(
    found: extract.Extracted,
    size: int,
    onset: int | None,
    apex: int | None,
    longest: float = LONGEST,
) -> tuple[list[ClipPart], list[SetAside]]:
    """The usable parts of a clip with onset and apex, one for each candidate.

    With a given onset or apex it is the one part that holds what is given.
    """
    failed, parts = list(found.set_aside), []
    given = [position for position in (onset, apex) if position is not None]
    for clip, shot in zip(found.clips, found.verdict.usable, strict=True):
        if not all(shot.first <= position < shot.end for position in given):
            continue
        inside = [None if p is None else p - shot.first for p in (onset, apex)]
        try:
            count = len(clip.frames)
            images = np.stack([pairs.read_nearest(clip, i, size)[1] for i in range(count)])
            most = max(2, round(longest * clip.fps)) if clip.fps else count
            for spotted in spotted_in(images, most, *inside):
                parts.append(
                    ClipPart(
                        clip,
                        shot.first,
                        images,
                        spotted,
                        how_found(clip.fps, longest, onset, apex),
                        head.motion(images[spotted.onset], images[spotted.apex]),
                        found.item.id,
                        most,
                        lacks=found.verdict.lacks,
                        searched=not given,
                    )
                )
        except (frames.FrameError, ValueError) as error:
            failed.append(SetAside(clip.id, " ".join(str(error).split())))
    if given and not parts and not failed:
        held = " and ".join(map(str, given))
        count = max((shot.end for shot in found.verdict.shots), default=0)
        reason = f"no usable part of the clip's {count} frames holds frame {held}, counted from 0"
        failed.append(SetAside(found.item.id, reason))
    return parts, failed


def spotted_in(
    images: np.ndarray, longest: int, onset: int | None, apex: int | None
) -> list[Spotted]:
    """Candidates in a part; the one that holds what is given, if anything is.

    With one of the two given, the other is at most `longest` frames away.
    """
    if onset is None and apex is None:
        return spotting.candidates(images, longest)
    first = max(0, apex - longest) if onset is None else 0
    end = min(len(images), onset + longest + 1) if apex is None else len(images)
    inside = (None if p is None else p - first for p in (onset, apex))
    found = spotting.spot(images[first:end], *inside)
    curve = np.zeros(len(images), np.float32)
    curve[first:end] = found.curve
    return [Spotted(first + found.onset, first + found.apex, curve, found.contrast)]


def how_found(fps: float, longest: float, onset: int | None, apex: int | None) -> str:
    """How onset and apex came about, in words."""
    named = {"onset": onset, "apex": apex}
    words = ", ".join(f"{k} {'spotted' if p is None else 'as given'}" for k, p in named.items())
    if None not in named.values():
        return words
    if not fps:
        return f"{words} in the whole part, for its frame rate is not known"
    return f"{words} within {1000 * longest:.0f} ms, at {fps:.4g} frames a second"


def by_clip(parts: Sequence[ClipPart]) -> list[list[ClipPart]]:
    """The candidates of each clip together, in the order in which they are given."""
    return [list(group) for _, group in itertools.groupby(parts, key=lambda part: part.clip.id)]


def by_strength(parts: Sequence[ClipPart]) -> list[ClipPart]:
    """What may be a micro-expression first, and then by contrast, the greatest first."""
    return sorted(parts, key=lambda part: (bool(part.nothing), -part.spotted.contrast))
