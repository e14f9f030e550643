"""What a finished run says about clips of one's own: a video, a folder of frames, or two images.

run = ma2mi_jax.open_run("runs/casme2-from-dfew-paper-0")
answers, failed = run.predict("video.mp4")
print(answers[0].prediction, answers[0].probabilities.mean(0))
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ma2mi_jax import files
from ma2mi_jax.clips import faces, spotting
from ma2mi_jax.clips.clip import SetAside
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.common import extract
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import calibration, gradcam, heatmaps, own_clips
from ma2mi_jax.evaluation import predictions as scored
from ma2mi_jax.evaluation.own_clips import LONGEST, ClipPart, Given
from ma2mi_jax.images import to_float
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training import finished, model_folder, pretraining, run_files
from ma2mi_jax.training.finished import Finetuned, Pretrained
from ma2mi_jax.training.model_folder import Model

CLOSE = 0.05  # difference of two probabilities that is none

NOTHING = "nothing that looks like a micro-expression"
UNDECIDED = "undecided"


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

    part: ClipPart
    classes: tuple[str, ...]
    probabilities: np.ndarray
    heat: dict[str, np.ndarray | None]

    @property
    def prediction(self) -> str:
        """The class of the greatest mean probability."""
        return self.classes[self.probabilities.mean(0).argmax()]

    @property
    def doubt(self) -> str:
        """Why no class is named; empty if one is."""
        if self.part.nothing:
            return self.part.nothing
        if len(self.classes) < 2:
            return "the models know this class alone, so they cannot tell it from anything"
        first, second = np.argsort(-self.probabilities.mean(0), kind="stable")[:2]
        ahead = self.probabilities[:, first] - self.probabilities[:, second]
        spread = _spread(ahead)
        if ahead.mean() < max(spread, CLOSE):
            both = " and ".join(
                f"{self.classes[k]} {self.probabilities[:, k].mean():.2f}" for k in (first, second)
            )
            return f"{both}, their difference ± {spread:.2f} over the models"
        return ""

    @property
    def verdict(self) -> str:
        """The predicted class, `UNDECIDED` or `NOTHING`."""
        if self.part.nothing:
            return NOTHING
        return UNDECIDED if self.doubt else self.prediction

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
        mean, spread = self.probabilities.mean(0), _spread(self.probabilities)
        rows = zip(self.classes, mean.tolist(), spread.tolist(), strict=True)
        return {name: (m, s) for name, m, s in rows}

    def to_json(self) -> dict[str, Any]:
        """The entry of predictions.json, but for the name of its picture."""
        part, votes = self.part, self.probabilities.argmax(-1)
        names, spotted = part.clip.frames.names, part.spotted
        return {
            "clip": part.clip.id,
            "frames": len(part.frames),
            "fps": part.clip.fps or None,
            "onset": self.onset,
            "apex": self.apex,
            "onset_ms": part.milliseconds(spotted.onset),
            "apex_ms": part.milliseconds(spotted.apex),
            "verdict": self.verdict,
            "doubt": self.doubt,
            "chance": 1 / len(self.classes),
            "head": part.head._asdict() | {"size": part.head.size},
            "onset_file": files.printable(names[part.spotted.onset]),
            "apex_file": files.printable(names[part.spotted.apex]),
            "contrast": part.spotted.contrast,
            "prediction": self.prediction,
            "probabilities": {c: {"mean": m, "std": s} for c, (m, s) in self.scores.items()},
            "votes": {c: int((votes == k).sum()) for k, c in enumerate(self.classes)},
        }


def _spread(values: np.ndarray) -> np.ndarray:
    """The standard deviation over models, (models, ...) given; 0 of a single one."""
    return values.std(0, ddof=min(1, len(values) - 1))


class Answers(NamedTuple):
    """What `predict` gives: an answer for each usable part, and what could not be used."""

    answers: list[Answer]
    failed: list[SetAside]


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A finished run or a model folder that can be asked: a fine-tuning's models, or a
    pre-training's one network."""

    run: Finetuned | Pretrained | Model

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

        return np.stack([of_model(*weights) for weights in weights_of(self.run)])


def open_run(path: str | os.PathLike) -> OpenRun:
    """A finished pre-training or fine-tuning, by the folder of its run.

    Raises:
      UserError: no such run, an unfinished one, or one that kept no weights.
    """
    path = pathlib.Path(path)
    if run_files.read(path).script == "pretrain":
        return OpenRun(finished.read_pretrained(path))
    return OpenRun(finished.read_with_weights(path))


def load(where: str | os.PathLike) -> OpenRun:
    """A model that somebody gives away, by its folder or by its id on the Hugging Face hub.

    model = ma2mi_jax.load("owner/name")
    answers, failed = model.predict("video.mp4")

    Raises:
      UserError: there is no such model, or it is not whole.
    """
    return OpenRun(model_folder.read(where))


def weights_of(run: Finetuned | Pretrained | Model) -> Iterator[tuple[Any, Any]]:
    """`params` and `batch_stats` of each of its models."""
    if isinstance(run, Pretrained):
        yield run.state.params, run.state.batch_stats
    elif isinstance(run, Model):
        yield from run.weights
    else:
        for _, params, batch_stats in finished.saved_members(run):
            yield params, batch_stats


def predict(
    run: OpenRun,
    *clips: Given,
    onset: int | None = None,
    apex: int | None = None,
    cropped: bool = False,
    longest: float = LONGEST,
    fps: float | None = None,
    every: bool = False,
    detector: faces.Detector | None = None,
    listener: Listener = SILENT,
) -> Answers:
    """What a fine-tuned run says about clips of one's own.

    A clip is a video, a folder of images of one face in order, or two images of one size. Faces are
    found and cropped as for training. Onset and apex are spotted (`clips/spotting.py`) unless they
    are given. A clip is divided at hard cuts, and a video after 5 seconds (and 128 frames) unless
    onset or apex is given; each part has its own answer. Where the frame rate is not known, a part
    counts as one expression, however long it is.

    Args:
      onset, apex: frames of the one clip, counted from 0.
      cropped: the frames are face crops: do not look for a face.
      longest: seconds from onset to offset, at most.
      fps: frames per second of the recording, if the clips do not say it or say it wrongly.
      every: an answer for every candidate of a part, not for the best one alone. A clip's answers
        are then in the order of their strength.
      detector: finds the faces; None is `detector_of(run.run)`.

    Raises:
      UserError: the run knows no classes, or onset and apex make no sense.
    """
    if isinstance(run.run.config, pretraining.Config):
        raise UserError(
            "[run={run}]: a pre-training knows no classes; give a fine-tuning",
            run=run.run.path,
        )
    own_clips.check(clips, onset, apex)
    given = onset is not None or apex is not None
    items, failed = own_clips.items_of(clips, whole=given)
    found = []
    if items:
        with listener.reading("finding faces") as progress:
            found = extract.extract(
                items,
                cache=str(registry.cache_dir() / "predict"),
                size=run.architecture.image_size,
                detector=detector or detector_of(run.run),
                cropped=cropped or None,
                progress=progress,
            )
    parts = []
    for each in found:
        is_two = each.item.images and not each.item.images.folder
        places = (0, 1) if is_two else (onset, apex)
        if fps:
            timed = tuple(dataclasses.replace(clip, fps=fps) for clip in each.clips)
            each = dataclasses.replace(each, clips=timed)
        size = run.architecture.image_size
        usable, refused = own_clips.parts_of(each, size, *places, longest=longest)
        ordered = [own_clips.by_strength(of) for of in own_clips.by_clip(usable)]
        chosen = own_clips.by_strength(usable) if every else [of[0] for of in ordered]
        parts, failed = parts + chosen, failed + refused
    return Answers(ask(run.run, parts, listener), failed)


def detector_of(
    run: Finetuned | Model,
    name: faces.DetectorName | None = None,
    model: str | None = None,
    align: faces.Align | None = None,
) -> faces.Deferred:
    """What finds the faces of clips: what found those that the run saw, unless another is asked
    for. It is chosen when a face is first looked for, and may raise UserError then.

    Args:
      name, model, align: as for `faces.detector`; None is as the run has it.
    """
    seen, cache = recorded_detector(run), registry.cache_dir()
    anything = registry.DatasetSpec("folder", "source")
    spec = anything if isinstance(run, Model) else run.datasets[0]
    there = spec.detector_model if os.path.isfile(spec.detector_model or "") else None
    if seen and not name and not align:
        return faces.Deferred(lambda: faces.like(seen, model or there, cache))
    name = name or spec.detector
    align = align or (faces.align_of(seen) if seen else spec.align)
    model = model or (None if name == "haar" else there)
    return faces.Deferred(lambda: faces.detector(name, model, align, cache))


def recorded_detector(run: Finetuned | Model) -> str:
    """Name of the detector that found the faces that a run saw; empty if nothing is known of it."""
    if isinstance(run, Model):
        return run.content.get("input", {}).get("detector", "")
    return run.stored.resolved.get("detector", "")


def ask(
    run: Finetuned | Model, parts: Sequence[ClipPart], listener: Listener = SILENT
) -> list[Answer]:
    """Every saved model's word on every part, at the run's temperature."""
    if not parts:
        return []
    temperature = temperature_of(run)
    pairs_of = [part.pair[None] for part in parts]
    every: list[list[gradcam.Explanation]] = [[] for _ in parts]
    with listener.progress("asking the models", len(run.members)) as advance:
        for params, batch_stats in weights_of(run):
            for told, pair in zip(every, pairs_of, strict=True):
                told.append(gradcam.explain(run.config, params, batch_stats, pair))
            advance()

    def answer(part: ClipPart, told: Sequence[gradcam.Explanation]) -> Answer:
        def stacked(name: str) -> np.ndarray | None:
            found = [getattr(each, name) for each in told]
            return None if found[0] is None else np.concatenate(found)

        heat = {name: stacked(name) for name in heatmaps.MAPS}
        p = calibration.cooled(stacked("probabilities"), temperature)
        return Answer(part, tuple(run.classes), p.astype(np.float32), heat)

    return [answer(part, told) for part, told in zip(parts, every, strict=True)]


def temperature_of(run: Finetuned | Model) -> float:
    """At which the probabilities of a single model of the run were honest on held-out subjects:
    `calibration`.

    What is shown of a clip is the mean over all models. Where they disagree it is nearer to equal
    classes than each of them is, so it is rather too unsure than too sure. A clip is held out
    from one fold's models alone, so there is nothing that the mean could be calibrated on.

    What was trained on all subjects has the temperature of the run that scored it, or 1.
    """
    if isinstance(run, Model):
        return (run.content["score"] or {"temperature": 1.0})["temperature"]
    if run.stored.resolved["protocol"]["name"] == "all":
        return 1.0
    found = scored.read_predictions(run.path / scored.FILE, run.classes)
    return calibration.fitted(found.probabilities.astype(np.float64), found.labels)


def draw(path: pathlib.Path, answer: Answer) -> None:
    """The picture of an answer: heat maps are means over the models, for the predicted class."""
    part, side = answer.part, answer.part.frames.shape[1]
    shown = answer.classes.index(answer.prediction)
    maps = {
        name: None if heat is None else np.asarray(gradcam.upsample(heat[:, shown].mean(0), side))
        for name, heat in answer.heat.items()
    }
    row = heatmaps.HeatRow(*answer.pair, **maps)
    predicted = answer.prediction
    shown = answer.verdict if answer.doubt else f"{predicted} {answer.scores[predicted][0]:.0%}"
    title = f"{part.clip.id}: {shown}; heat maps for {predicted}. No lie detector."
    if answer.doubt:
        title += f"\n({answer.doubt})"
    how = (part.spotted, part.first, part.how)
    named = None if answer.doubt else predicted
    heatmaps.clip_picture(path, row, *how, answer.scores, title, named)


def draw_over_time(path: pathlib.Path, answers: Sequence[Answer]) -> None:
    """The candidates of one clip over time, above how much comes and goes in its face."""
    parts = {each.part.clip.id: each.part for each in answers}.values()
    fps = next(iter(parts)).clip.fps
    rate = fps or 1.0
    lines = [
        ((part.first + np.arange(len(part.frames))) / rate, part)
        for part in sorted(parts, key=lambda part: part.first)
    ]
    heatmaps.over_time(
        path,
        [(times, spotting.activity(part.frames, part.longest)) for times, part in lines],
        [
            heatmaps.Candidate(
                each.onset / rate, each.apex / rate, each.verdict, not each.doubt, each.pair[1]
            )
            for each in answers
        ],
        "seconds" if fps else "frame of the clip, from 0",
    )


def record_of(run: Finetuned | Model) -> dict[str, Any]:
    """What is known of the data and the score: `target`, `n`, `subjects`, `classes`, `accuracy` and
    `uf1`.

    Of what was trained on all subjects `no_score` says so, and the two are those of models that
    left subjects out, if such are known.
    """
    if isinstance(run, Finetuned):
        return run_files.read_results(run.path, "finetune")
    data, score = run.content["data"], run.content["score"] or {}
    record = {"target": data["name"], "n": data["n"], "subjects": data["subjects"]}
    scores = {name: score[name] for name in ("accuracy", "uf1") if name in score}
    return record | {"no_score": True, "classes": run.classes} | scores


def caution(run: Finetuned | Model) -> str:
    """What the numbers are worth."""
    record = record_of(run)
    count, data = len(run.members), "{n} clips of {subjects} subjects ({target})".format(**record)
    scores = ""
    if "accuracy" in record:
        scores = "accuracy {accuracy:.2f} and UF1 {uf1:.2f}".format(**record)
        scores += f" over {len(record['classes'])} classes"
    if "no_score" not in record:
        trained = f"each trained on a part of {data}; on the subjects it had not seen they reached "
        trained += scores
    elif "accuracy" in record:
        trained = f"trained on all of {data}; models trained alike on a part of these subjects "
        trained += f"reached {scores} on the others"
    else:
        trained = f"trained on all of {data}; nobody was left to test them on"
    return (
        f"Scores of {count} {'model' if count == 1 else 'models'}, {trained}, and how they do on "
        "other people and cameras is not known. They guess at a movement of the face and say "
        "nothing about what somebody feels or hides: this is no lie detector."
    )
