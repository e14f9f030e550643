"""Clips of one's own: what a finished run says about a video, a folder of frames, or two images.

run = ma2mi_jax.open_run("runs/casme2-from-dfew-paper-0")
answers, failed = run.predict("video.mp4")
print(answers[0].prediction, answers[0].probabilities.mean(0))
"""

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ma2mi_jax import files
from ma2mi_jax.clips import faces, frames, pairs, video
from ma2mi_jax.clips.clip import Clip, SetAside
from ma2mi_jax.clips.spotting import Spotted, spot
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.common import extract
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import gradcam, heatmaps
from ma2mi_jax.images import to_float
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training import finished, run_config
from ma2mi_jax.training.finished import Finetuned, Pretrained

SECONDS = 5.0  # of a video in which one expression is looked for
Given = str | os.PathLike | tuple[str | os.PathLike, str | os.PathLike]
"""A clip as a person names it: a video, a folder of images, or two images (onset, apex)."""


class Part(NamedTuple):
    """A part of a clip to predict.

    Attributes:
      clip: the part alone.
      first: where the part begins in the clip as it was given.
      frames: (n, size, size, 3) uint8 crops.
      spotted: onset and apex in the part.
      how: onset and apex came about, in words.
      lacks: how much of a damaged video is used, as "59 of 100 frames"; empty if it is whole.
    """

    clip: Clip
    first: int
    frames: np.ndarray
    spotted: Spotted
    how: str
    lacks: str = ""

    @property
    def pair(self) -> np.ndarray:
        """(2, size, size, 3) uint8: the crops of onset and apex."""
        return self.frames[[self.spotted.onset, self.spotted.apex]]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a run's models say about one part of a clip.

    Attributes:
      part: what they were asked about.
      classes: names.
      probabilities: (models, classes) float32.
      heat: name -> (models, classes, h, w) float32 heat maps, see `gradcam.Explanation`; None where
        the network has no such encoder.
    """

    part: Part
    classes: tuple[str, ...]
    probabilities: np.ndarray
    heat: dict[str, np.ndarray | None]

    @property
    def prediction(self) -> str:
        """The class of the greatest mean probability."""
        return self.classes[self.probabilities.mean(0).argmax()]

    @property
    def onset(self) -> int:
        """Its frame, counted from 0 in the clip as it was given."""
        return self.part.first + self.part.spotted.onset

    @property
    def apex(self) -> int:
        """Its frame, counted from 0 in the clip as it was given."""
        return self.part.first + self.part.spotted.apex

    @property
    def pair(self) -> np.ndarray:
        """(2, size, size, 3) uint8: the crops of onset and apex."""
        return self.part.pair

    @property
    def scores(self) -> dict[str, tuple[float, float]]:
        """Class -> mean probability over the models, and its standard deviation."""
        mean = self.probabilities.mean(0)
        spread = self.probabilities.std(0, ddof=min(1, len(self.probabilities) - 1))
        rows = zip(self.classes, mean.tolist(), spread.tolist(), strict=True)
        return {name: (m, s) for name, m, s in rows}

    def to_json(self) -> dict[str, Any]:
        """The entry of predictions.json, but for the name of its picture."""
        part, votes = self.part, self.probabilities.argmax(-1)
        names = getattr(part.clip.frames, "names", ())
        return {
            "clip": part.clip.id,
            "frames": len(part.frames),
            "onset": self.onset,
            "apex": self.apex,
            "onset_file": files.printable(names[part.spotted.onset]),
            "apex_file": files.printable(names[part.spotted.apex]),
            "contrast": part.spotted.contrast,
            "prediction": self.prediction,
            "probabilities": {c: {"mean": m, "std": s} for c, (m, s) in self.scores.items()},
            "votes": {c: int((votes == k).sum()) for k, c in enumerate(self.classes)},
        }


class Answers(NamedTuple):
    """What `predict` gives: an answer for each usable part, and what could not be used."""

    answers: list[Answer]
    failed: list[SetAside]


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A finished run that can be asked: a fine-tuning's models, or a pre-training's one network."""

    run: Finetuned | Pretrained

    @property
    def architecture(self) -> Architecture:
        """Of its networks."""
        return self.run.config.architecture

    def predict(self, *clips: Given, **how: Any) -> Answers:
        """Class probabilities of clips: see `predict`.

        Raises:
          UserError: the run is a pre-training, which knows no classes.
        """
        return predict(self, *clips, **how)

    def condition(self, onset: np.ndarray, apex: np.ndarray) -> np.ndarray:
        """C_Δ of a pair (paper §3.1) by every model: two face crops, uint8 (size, size, 3) of the
        architecture's `image_size` -> (models, D) float32; a pre-training is one model."""
        frames = to_float(jnp.stack([jnp.asarray(onset), jnp.asarray(apex)]))[:, None]

        @jax.jit
        def of_model(params, batch_stats):
            variables = {"params": params["miacnet"], "batch_stats": batch_stats}
            network = self.architecture.miacnet(jnp.float32)
            return network.apply(variables, frames[0], frames[1], False)[0]

        if isinstance(self.run, Pretrained):
            found = [of_model(self.run.state.params, self.run.state.batch_stats)]
        else:
            found = [of_model(*weights) for _, *weights in finished.saved_members(self.run)]
        return np.stack(found)


def open_run(path: str | os.PathLike) -> OpenRun:
    """A finished run of pretrain.py or finetune.py, by its folder.

    Raises:
      UserError: no such run, or an unfinished one.
    """
    path = pathlib.Path(path)
    if run_config.read(path).script == "pretrain":
        return OpenRun(finished.read_pretrained(path))
    return OpenRun(finished.read_finetuned(path))


def predict(
    run: OpenRun,
    *clips: Given,
    onset: int | None = None,
    apex: int | None = None,
    cropped: bool = False,
    detector: str = "haar",
    detector_model: str | None = None,
    listener: Listener = SILENT,
) -> Answers:
    """What a fine-tuned run says about clips of one's own.

    A clip is a video, a folder of images of one face in order, or two images of one size. Faces are
    found and cropped as for training. Onset and apex are spotted (`clips/spotting.py`) unless they
    are given. A clip is divided at hard cuts, and a video after 5 seconds (and 128 frames) unless
    onset or apex is given; each part has its own answer.

    Args:
      onset, apex: frames of the one clip, counted from 0.
      cropped: the frames are face crops: do not look for a face.
      detector, detector_model: find the faces: see `faces.detector`.

    Raises:
      UserError: the run knows no classes, or onset and apex make no sense.
    """
    if isinstance(run.run, Pretrained):
        raise UserError(
            "[run={run}]: a pre-training knows no classes; give the folder of a fine-tuning",
            run=run.run.path,
        )
    check(clips, onset, apex)
    given = onset is not None or apex is not None
    items, failed = items_of(clips, whole=given)
    found = []
    if items:
        with listener.reading("finding faces") as progress:
            found = extract.extract(
                items,
                cache=str(registry.cache_dir() / "predict"),
                size=run.architecture.image_size,
                detector=faces.detector(detector, detector_model),
                cropped=cropped or None,
                progress=progress,
            )
    parts = []
    for each in found:
        is_two = each.item.images and not each.item.images.folder
        places = (0, 1) if is_two else (onset, apex)
        usable, refused = parts_of(each, run.architecture.image_size, *places)
        parts, failed = parts + usable, failed + refused
    return Answers(ask(run.run, parts, listener), failed)


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


# ---------------------------------------------------------------------------------------- clips


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
    found: extract.Extracted, size: int, onset: int | None, apex: int | None
) -> tuple[list[Part], list[SetAside]]:
    """The usable parts of a clip with onset and apex.

    With a given onset or apex it is the one part that holds what is given.
    """
    failed, parts = list(found.set_aside), []
    usable = [shot for shot in found.verdict.shots if not shot.reason]
    named = {"onset": onset, "apex": apex}
    given = [position for position in named.values() if position is not None]
    how = ", ".join(
        f"{name} {'spotted' if position is None else 'as given'}"
        for name, position in named.items()
    )
    for clip, shot in zip(found.clips, usable, strict=True):
        if not all(shot.first <= position < shot.end for position in given):
            continue
        inside = [None if p is None else p - shot.first for p in (onset, apex)]
        try:
            count = len(clip.frames)
            images = np.stack([pairs.read_nearest(clip, i, size)[1] for i in range(count)])
            spotted = spot(images, *inside)
            parts.append(Part(clip, shot.first, images, spotted, how, found.verdict.lacks))
        except (frames.FrameError, ValueError) as error:
            failed.append(SetAside(clip.id, " ".join(str(error).split())))
    if given and not parts and not failed:
        held = " and ".join(map(str, given))
        count = max((shot.end for shot in found.verdict.shots), default=0)
        reason = f"no usable part of the clip's {count} frames holds frame {held}, counted from 0"
        failed.append(SetAside(found.item.id, reason))
    return parts, failed


# -------------------------------------------------------------------------------------- answers


def ask(run: Finetuned, parts: Sequence[Part], listener: Listener = SILENT) -> list[Answer]:
    """Every saved model's word on every part."""
    if not parts:
        return []
    pairs_of = [part.pair[None] for part in parts]
    every: list[list[gradcam.Explanation]] = [[] for _ in parts]
    with listener.progress("asking the models", len(run.members)) as advance:
        for _, params, batch_stats in finished.saved_members(run):
            for told, pair in zip(every, pairs_of, strict=True):
                told.append(gradcam.explain(run.config, params, batch_stats, pair))
            advance()

    def answer(part: Part, told: Sequence[gradcam.Explanation]) -> Answer:
        def stacked(name: str) -> np.ndarray | None:
            found = [getattr(each, name) for each in told]
            return None if found[0] is None else np.concatenate(found)

        heat = {name: stacked(name) for name in heatmaps.MAPS}
        return Answer(part, tuple(run.classes), stacked("probabilities"), heat)

    return [answer(part, told) for part, told in zip(parts, every, strict=True)]


def draw(path: pathlib.Path, answer: Answer) -> None:
    """The picture of an answer: heat maps are means over the models, for the predicted class."""
    part, side = answer.part, answer.part.frames.shape[1]
    shown = answer.classes.index(answer.prediction)
    maps = {
        name: None if heat is None else np.asarray(gradcam.upsample(heat[:, shown].mean(0), side))
        for name, heat in answer.heat.items()
    }
    row = heatmaps.Row(*answer.pair, **maps)
    predicted = answer.prediction
    title = (
        f"{part.clip.id}: {predicted} {answer.scores[predicted][0]:.0%}; "
        f"heat maps for {predicted}. No lie detector."
    )
    heatmaps.clip_picture(path, row, part.spotted, part.first, part.how, answer.scores, title)


def record_of(run: Finetuned) -> dict[str, Any]:
    """The content of its results.json."""
    return files.read_json(run.path / run_config.RESULTS["finetune"])


def caution(run: Finetuned) -> str:
    """What the numbers are worth."""
    record = record_of(run)
    return (
        f"Scores of {len(run.members)} models, each trained on a part of {record['n']} clips of "
        f"{record['subjects']} subjects ({record['target']}); on the subjects it had not seen they "
        f"reached accuracy {record['accuracy']:.2f} and UF1 {record['uf1']:.2f} over "
        f"{len(record['classes'])} classes, and how they do on other people and cameras is not "
        "known. They guess at a movement of the face and say nothing about what somebody feels or "
        "hides: this is no lie detector."
    )
