"""The synthetic benchmark: drawn faces, as macro clips to learn from and micro pairs to recognise.

It stands in for no real dataset. A clip begins as a script that says what each frame shows, and
`films.py` has it drawn.

Macro clips are of many people, each of whom is seen once. Micro clips are of a few subjects, whom
no macro clip shows, whatever the seeds.
"""

import numpy as np

from ma2mi_jax.clips.clip import Clip, Dataset
from ma2mi_jax.clips.frames import ArrayFrames
from ma2mi_jax.datasets.drawn.films import (
    FLICKER,
    MACRO,
    MICRO,
    PERSON,
    Progress,
    Script,
    check_at_least,
    film,
    stream,
)
from ma2mi_jax.datasets.drawn.portrait import UNITS, Light, Pose, random_identity

EMOTIONS = {  # the classes of DFEW, in its order
    "happy": (6, 12, 25),
    "sad": (1, 4, 15, 17),
    "neutral": (),
    "angry": (4, 5, 7, 23),
    "surprise": (1, 2, 5, 25, 26),
    "disgust": (9, 10, 17),
    "fear": (1, 2, 4, 5, 20, 25),
}
_OTHERS = (4, 7, 14, 20, 23, 25)
MICRO_EMOTIONS = {  # the classes of CASME II; each shows as one of its combinations of units
    "happiness": ((6, 12),),
    "disgust": ((4, 9), (9, 10), (4, 9, 10)),
    "repression": ((15, 17),),
    "surprise": ((1, 2, 5, 26), (1, 2, 5), (1, 2, 26)),
    "others": tuple((first, second) for first in _OTHERS for second in _OTHERS if first < second),
}
FREQUENCIES = (0.16, 0.24, 0.15, 0.15, 0.30)  # of the micro classes, unequal as in the real sets

# What a mouth does when it speaks: full units of a vowel and of a consonant by turns. Where the
# numbers are from: docs/choices.md.
VOWELS = (
    {25: 0.55, 26: 0.65},  # as in "father"
    {25: 0.50, 20: 0.50, 26: 0.20},  # "see"
    {25: 0.30, 23: 0.80, 26: 0.25},  # "you"
    {25: 0.40, 26: 0.35},  # "the"
)
CONSONANTS = (
    {23: 0.40, 17: 0.40},  # m, b, p
    {25: 0.20, 10: 0.35, 17: 0.20},  # f, v
    {25: 0.20, 20: 0.15},  # t, d, s, n
    {25: 0.25, 23: 0.50, 10: 0.20},  # sh, w
    {25: 0.30, 15: 0.25, 26: 0.15},  # l, r, k
)
OPENING = (25, 26)  # units that a speaker's articulation commands alone
SYLLABLES = (3.0, 5.0)  # a second
FPS = 25  # pictures a second, as in films


def macro_source(
    cache: str,
    *,
    clips: int,
    frames: int = 24,
    size: int,
    seed: int,
    speech: float = 0.5,
    progress: Progress | None = None,
) -> Dataset:
    """Clips of macro-expressions, each of another person.

    Args:
      cache: folder for the drawn frames, made if need be.
      clips: how many.
      frames: of each clip.
      size: pixels along a side.
      seed: not negative; names the people and all they do.
      speech: share of clips in which the person speaks, whatever the class. Two shares differ in
        the mouths of those who speak under one of them alone.
      progress: called with (frames drawn, frames in all) while drawing.

    Returns:
      A dataset with the seven classes of `EMOTIONS`, each equally often.

    Raises:
      UserError: a number is out of range, or `cache` cannot be written.
    """
    check_at_least(
        clips=(clips, 1), frames=(frames, 2), size=(size, 16), seed=(seed, 0), speech=(speech, 0)
    )
    names = tuple(EMOTIONS)
    labels = [index % len(names) for index in range(clips)]
    scripts = [
        macro_script(stream(MACRO, index, seed), names[label], frames, speech)
        for index, label in enumerate(labels)
    ]
    parameters = {"clips": clips, "frames": frames, "seed": seed, "speech": float(speech)}
    path = film(cache, "macro", parameters, scripts, size, progress)
    records = (
        Clip(
            id=f"{names[label]}/{index:06d}",
            frames=ArrayFrames(path, index * frames, frames),
            label=label,
        )
        for index, label in enumerate(labels)
    )
    return Dataset("synthetic", tuple(sorted(records, key=lambda clip: clip.id)), names)


def micro_source(
    cache: str,
    *,
    subjects: int,
    clips_per_subject: int,
    size: int,
    seed: int,
    amplitude: float = 0.3,
    progress: Progress | None = None,
) -> Dataset:
    """Pairs of an onset and an apex frame of micro-expressions.

    Args:
      cache: folder for the drawn frames, made if need be.
      subjects: how many people. None of them is in any `macro_source`.
      clips_per_subject: how many pairs of each.
      size: pixels along a side.
      seed: not negative.
      amplitude: mean intensity of an expression; 1 is the full action unit. Single clips differ by
        30 %.
      progress: called with (frames drawn, frames in all) while drawing.

    Returns:
      A dataset with the five classes of `MICRO_EMOTIONS`. Onset and apex are frames 0 and 1, and
      `action_units` names what is shown.

    Raises:
      UserError: a number is out of range, or `cache` cannot be written.
    """
    check_at_least(
        subjects=(subjects, 1),
        clips_per_subject=(clips_per_subject, 1),
        size=(size, 16),
        seed=(seed, 0),
        amplitude=(amplitude, 0),
    )
    names = tuple(MICRO_EMOTIONS)
    scripts, records = [], []
    for subject in range(subjects):
        rng = stream(PERSON, subject, seed)
        sitter, labels = _sitter(rng), _labels(rng, clips_per_subject)
        for number, label in enumerate(labels):
            index = subject * clips_per_subject + number
            script, shown = micro_script(
                stream(MICRO, index, seed), sitter, names[label], amplitude
            )
            name = f"s{subject + 1:0{len(str(max(10, subjects)))}d}"
            scripts.append(script)
            records.append(
                (f"{name}/{number + 1:04d}", index, name, label, "+".join(map(str, shown)))
            )
    parameters = {
        "subjects": subjects,
        "clips_per_subject": clips_per_subject,
        "seed": seed,
        "amplitude": float(amplitude),
    }
    path = film(cache, "micro", parameters, scripts, size, progress)
    clips = tuple(
        Clip(
            id,
            ArrayFrames(path, 2 * index, 2),
            subject=name,
            label=label,
            onset=0,
            apex=1,
            offset=1,
            action_units=shown,
        )
        for id, index, name, label, shown in records
    )
    return Dataset("synthetic", clips, names)


# ----- scripts ------------------------------------------------------------------------------------


def macro_script(rng: np.random.Generator, emotion: str, frames: int, speech: float) -> Script:
    """A clip out of a film: someone new shows an expression, and in a share of clips speaks.

    The clip is cut anywhere: it may begin before the expression does, in the middle of its rise, or
    after its peak. The head is never quite still.
    """
    who, pose, light = random_identity(rng), _pose(rng, 1.0), _light(rng)
    units = np.zeros((frames, len(UNITS), 2))
    peak, time = rng.uniform(0.6, 1.0), _swing_times(rng)
    for unit in EMOTIONS[emotion]:
        lag = rng.normal(0, 0.04)  # muscles do not start together
        units[:, UNITS.index(unit)] += (
            peak * rng.uniform(0.75, 1.1) * _swing(frames, lag, *time)[:, None] * _sides(rng)
        )
    for unit in rng.choice(
        UNITS[:-1], rng.integers(0, 3), replace=False
    ):  # and something that means nothing
        units[:, UNITS.index(unit)] += (
            rng.uniform(0.05, 0.3) * _swing(frames, 0.0, *_swing_times(rng))[:, None] * _sides(rng)
        )
    for moment in rng.uniform(0, frames, rng.integers(0, 3)):  # blinks
        units[:, UNITS.index(45)] += np.exp(-(((np.arange(frames) - moment) / 1.4) ** 2))[:, None]

    drift = Pose(0.007, 0.007, 0.008, 0.004, 0.01, 0.01)
    pose = Pose(
        *(still + scale * _drift(rng, frames) for still, scale in zip(pose, drift, strict=True))
    )
    light = _flickering(rng, light, frames)

    speaks, (talking, mouth) = rng.random() < speech, _speech(rng, frames)
    if speaks:
        opening = [UNITS.index(unit) for unit in OPENING]
        units[:, opening] *= 1 - talking[:, None, None]
        units += (talking[:, None] * mouth)[:, :, None]
    return Script(who, np.clip(units, 0, 1), pose, light)


def _speech(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """When someone speaks, (frames,) in [0, 1], and what the mouth does then, (frames, 17).

    Syllables follow each other, each a consonant and a vowel, and the mouth glides from one to the
    next. A phrase begins before the clip or in it, and it ends in the clip or after it.
    """
    period, effort = FPS / rng.uniform(*SYLLABLES), rng.uniform(0.5, 1.0)
    syllables = 4 + int(frames * SYLLABLES[1] / FPS)
    goals = np.zeros((2 * syllables, len(UNITS)))
    for row, goal in enumerate(goals):
        sounds = (CONSONANTS, VOWELS)[row % 2]
        for unit, intensity in sounds[rng.integers(len(sounds))].items():
            goal[UNITS.index(unit)] = effort * rng.uniform(0.7, 1.2) * intensity
    lengths = period / 2 * rng.uniform(0.8, 1.2, len(goals))
    moments = np.cumsum(lengths) - rng.uniform(1, 3) * period

    time = np.arange(frames)
    place = np.interp(time, moments, np.arange(len(goals)))
    last = np.minimum(place.astype(int), len(goals) - 2)
    mouth = goals[last] + (goals[last + 1] - goals[last]) * _ease(place - last)[:, None]
    begin = rng.uniform(-0.5, 0.5) * frames
    end = begin + rng.uniform(0.5, 1.5) * frames
    return _ease((time - begin) / 3) * _ease((end - time) / 3), mouth


def _sitter(rng: np.random.Generator) -> Script:
    """A subject in the laboratory: one frame of the face at rest, which is not quite neutral."""
    rest = np.zeros((len(UNITS), 2))
    for unit in rng.choice(UNITS[:-1], 3, replace=False):
        rest[UNITS.index(unit)] = rng.uniform(0.0, 0.2) * _sides(rng)
    return Script(random_identity(rng), rest, _pose(rng, 0.7), _light(rng))


def micro_script(
    rng: np.random.Generator, sitter: Script, emotion: str, amplitude: float
) -> tuple[Script, tuple[int, ...]]:
    """An onset and an apex frame of `sitter`, and the units that were shown.

    The random draws do not depend on `amplitude`. So two amplitudes differ in the expression only.
    """
    full = MICRO_EMOTIONS[emotion][rng.integers(len(MICRO_EMOTIONS[emotion]))]
    kept = rng.random(len(full)) > 0.15  # not every unit of a combination shows every time
    kept[rng.integers(len(full))] = True
    shown = tuple(unit for unit, keep in zip(full, kept, strict=True) if keep)
    expression = np.zeros((len(UNITS), 2))
    strength = rng.uniform(0.7, 1.3)
    for unit in shown:
        expression[UNITS.index(unit)] = strength * rng.uniform(0.75, 1.25) * _sides(rng)

    units = (
        sitter.units
        + rng.normal(0, 0.015, (2, len(UNITS), 2))
        + np.array([0.0, amplitude])[:, None, None] * expression
    )
    blink, moment = rng.uniform(0.2, 1.0) * (rng.random() < 0.15), rng.integers(2)
    units[:, UNITS.index(45)] = 0.0
    units[moment, UNITS.index(45)] = blink
    settled = Pose(
        0.015, 0.015, 0.01, 0.01, 0.01, 0.01
    )  # how differently the head is held from clip to clip ...
    shaken = Pose(0.006, 0.006, 0.003, 0.002, 0.004, 0.004)  # ... and from onset to apex
    pose = Pose(
        *(
            still + clip * rng.normal() + pair * rng.normal(0, 1, 2)
            for still, clip, pair in zip(sitter.pose, settled, shaken, strict=True)
        )
    )
    return Script(
        sitter.identity, np.clip(units, 0, 1), pose, _flickering(rng, sitter.light, 2)
    ), shown


def _labels(rng: np.random.Generator, count: int) -> list[int]:
    """Classes of one subject's clips.

    The first three differ, so that nobody shows only one emotion.
    """
    first = rng.choice(len(FREQUENCIES), min(3, count), replace=False, p=FREQUENCIES)
    return [
        *map(int, first),
        *map(int, rng.choice(len(FREQUENCIES), count - len(first), p=FREQUENCIES)),
    ]


def _sides(rng: np.random.Generator) -> np.ndarray:
    """Weights of the two halves of the face: mostly about equal, at times one-sided."""
    weights = np.array(
        [1.0, 1 - (rng.uniform(0.2, 0.7) if rng.random() < 0.25 else rng.uniform(0.0, 0.15))]
    )
    return rng.permutation(weights)


def _swing_times(rng: np.random.Generator) -> tuple[float, float, float, float, float]:
    """An expression as `_swing` takes it, longer than the clip as often as shorter.

    It peaks at any time in the clip. How far it is at the clip's start follows from that and is
    anything from 0 to 1.
    """
    peak, (rise, fall) = rng.uniform(0.0, 1.0), rng.uniform(0.35, 1.0, 2)
    return peak, rise, fall, rng.uniform(0.0, 0.5), rng.uniform(0.0, 0.7)


def _swing(
    frames: int, lag: float, peak: float, rise: float, fall: float, before: float, after: float
) -> np.ndarray:
    """A smooth rise from `before` to 1 at time `peak`, then a fall to `after`.

    The times of the clip are from 0 to 1; `rise` and `fall` say how long the two take.
    """
    time = np.linspace(0, 1, frames) - lag
    up, down = _ease((time - peak) / rise + 1), _ease((time - peak) / fall)
    return before + (1 - before) * up - (1 - after) * down


def _ease(time: np.ndarray) -> np.ndarray:
    """0 up to time 0, 1 from time 1 on, smooth between."""
    time = np.clip(time, 0, 1)
    return time * time * (3 - 2 * time)


def _drift(rng: np.random.Generator, frames: int) -> np.ndarray:
    """A slow wandering of order 1."""
    time = np.linspace(0, 2 * np.pi, frames)
    return sum(
        rng.normal() / k * np.sin(0.7 * k * time + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3)
    )


def _pose(rng: np.random.Generator, ease: float) -> Pose:
    return Pose(*(ease * rng.normal(0, scale) for scale in (0.03, 0.03, 0.05, 0.05, 0.05, 0.04)))


def _light(rng: np.random.Generator) -> Light:
    low, high = Light(-0.6, -0.7, 0.4, 0.85, -0.04), Light(0.6, 0.1, 0.8, 1.1, 0.04)
    return Light(*(rng.uniform(*ends) for ends in zip(low, high, strict=True)))


def _flickering(rng: np.random.Generator, light: Light, frames: int) -> Light:
    return Light(*(np.full(frames, value) for value in light))._replace(
        gain=light.gain * (1 + rng.normal(0, FLICKER, frames))
    )
