"""Simulate how often an interval over subjects and seeds holds the truth.

  python -m benchmarks.intervals             # several ways of making one, side by side
  python -m benchmarks.intervals --coverage         # the numbers in
  python -m benchmarks.intervals --coverage --rare  # ma2mi_jax/evaluation/intervals.py

Runs are drawn whose true scores are known: 8 to 26 subjects with 4, 14 or 4 to 14 clips each, 1, 2
or 4 seeds, an accuracy of .55 or .85, and a spread between seeds of 0, .02 or .04 in accuracy that
is common to all subjects. Subjects, runs on a subject, folds of a seed and clips have a spread too
(`World`). Two runs of a comparison are equally good. Prints percentages: a false alarm is an
interval of a difference beside 0, coverage is that of the interval of one run's score. Both should
be 5 and 95.

Labels are spread evenly, which is kind to UF1 and UAR: they are then as smooth as the accuracy.
With --rare one class is shown by a fifth of the subjects alone, as contempt is, and the other
classes are uneven: one subject more or less then moves UF1 by up to a fifth.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import cli
import numpy as np
from scipy.special import ndtr, ndtri

from ma2mi_jax.evaluation import intervals, metrics

CLASSES = 5
RARE = 2  # the class that few show
FEW = 0.2  # of the subjects: so many show it
SHARES = {  # of the classes: of a subject who does not show it, and of one who does
    False: np.array([20, 45, 0, 13, 22]) / 100,
    True: np.array([20, 45, 45, 13, 22]) / 145,
}
SUBJECTS = (8, 10, 20, 26)
CLIPS = ((4, 4), (14, 14), (4, 14))
SPREADS = (0.0, 0.02, 0.04)
ACCURACIES = (0.55, 0.85)
SEEDS = (1, 2, 4)
SCORES = {"accuracy": metrics.accuracy, "uf1": metrics.uf1, "uar": metrics.uar}

Ends = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class World:
    """What runs are drawn from. Spreads are standard deviations, in accuracy unless said otherwise.

    A clip is right where the sum of all effects is above 0. A clip's difficulty and its luck under
    a seed have a standard deviation of 1 each in this sum: so at an accuracy of .55 two seeds
    disagree about the correctness of a third of the clips.

    Attributes:
      subjects: their number.
      clips: of a subject, at least and at most.
      accuracy: of every run over all subjects and seeds; see `truth` for UF1 and UAR.
      spread: between seeds, common to all subjects.
      between_subjects: common to all runs.
      run_on_subject: between runs, for each subject.
      fold: between seeds, for each subject, since its fold is trained apart.
      shared: how much of the variance of a clip's difficulty is common to two runs.
      rare: a class is shown by FEW subjects alone; otherwise labels are spread evenly.
    """

    subjects: int
    clips: tuple[int, int]
    accuracy: float
    spread: float
    between_subjects: float = 0.1
    run_on_subject: float = 0.05
    fold: float = 0.05
    shared: float = 0.7
    rare: bool = False


@dataclasses.dataclass(frozen=True)
class Runs:
    """Drawn runs.

    Attributes:
      confusions: of each run, (seeds, subjects, CLASSES, CLASSES).
      accuracies: of each run, (seeds,) true ones over all subjects.
    """

    confusions: Sequence[np.ndarray]
    accuracies: Sequence[np.ndarray]


def draw(rng: np.random.Generator, world: World, runs: int, seeds: int) -> Runs:
    """Draws runs over the same subjects and clips."""
    counts = rng.integers(world.clips[0], world.clips[1] + 1, world.subjects)
    of = np.repeat(np.arange(world.subjects), counts)  # the subject of each clip
    labels = draw_labels(rng, world, of)

    # From a spread in accuracy to one in the sum of effects, by the slope of the two at the mean.
    scale = np.sqrt(2) / (np.exp(-(ndtri(world.accuracy) ** 2) / 2) / np.sqrt(2 * np.pi))
    spreads = (world.spread, world.between_subjects, world.run_on_subject, world.fold)
    spread, subject, on_subject, fold = (scale * each for each in spreads)
    apart = np.sqrt(2 + subject**2 + on_subject**2 + fold**2)  # of one seed's clips
    middle = ndtri(world.accuracy) * np.hypot(apart, spread)

    common = rng.normal(0, subject, world.subjects)[of]
    common = common + rng.normal(0, np.sqrt(world.shared), len(of))
    confusions, accuracies = [], []
    for _ in range(runs):
        of_run = rng.normal(0, on_subject, world.subjects)[of]
        of_run = of_run + rng.normal(0, np.sqrt(1 - world.shared), len(of))
        of_seed = rng.normal(0, spread, (seeds, 1))
        luck = rng.normal(0, fold, (seeds, world.subjects))[:, of]
        luck = luck + rng.normal(0, 1, (seeds, len(of)))
        right = middle + common + of_run + of_seed + luck > 0
        wrong = (labels + rng.integers(1, CLASSES, right.shape)) % CLASSES
        made = np.zeros((seeds, world.subjects, CLASSES, CLASSES), int)
        np.add.at(made, (np.arange(seeds)[:, None], of, labels, np.where(right, labels, wrong)), 1)
        confusions.append(made)
        accuracies.append(ndtr((middle + of_seed[:, 0]) / apart))
    return Runs(confusions, accuracies)


def draw_labels(rng: np.random.Generator, world: World, of: np.ndarray) -> np.ndarray:
    """The label of each clip; `of` is its subject."""
    if not world.rare:
        return rng.integers(0, CLASSES, len(of))
    shows = rng.random(world.subjects) < FEW
    ends = np.where(shows[:, None], SHARES[True].cumsum(), SHARES[False].cumsum())
    return (rng.random((len(of), 1)) > ends[of, :-1]).sum(1)


def truth(score: Callable, world: World, accuracy: float) -> float:
    """A score of a run over all subjects that there are. Errors are spread evenly."""
    shares = np.full(CLASSES, 1 / CLASSES)
    if world.rare:
        shares = FEW * SHARES[True] + (1 - FEW) * SHARES[False]
    right, wrong = np.eye(CLASSES), 1 - np.eye(CLASSES)
    each = accuracy * right + (1 - accuracy) * wrong / (CLASSES - 1)
    return float(score(1e6 * shares[:, None] * each))  # counts of many clips


# ----- ways of making an interval -----------------------------------------------------------------


def ours(confusions: Sequence[np.ndarray], score, rng) -> Ends:
    """What the library does."""
    if len(confusions) == 1:
        return intervals.of_score(confusions[0], score)["interval95"]
    return intervals.of_difference(*confusions, score)["interval95"]


def held(confusions: Sequence[np.ndarray], score, rng) -> Ends:
    """The same with all seeds held fixed."""
    together = [np.zeros(len(c), int) for c in confusions]
    if len(confusions) == 1:
        return intervals.of_score(confusions[0], score, together[0])["interval95"]
    return intervals.of_difference(*confusions, score, tuple(together))["interval95"]


def drawn_again(seeds: bool, widen: bool = False, basic: bool = False, samples: int = 400):
    """A bootstrap of subjects, the same for both runs.

    Args:
      seeds: draw the seeds of each run again too.
      widen: what the drawn means over seeds differ by is made √(k/(k − 1)) times as large.
      basic: the quantiles are mirrored at the score.
    """

    def interval(confusions: Sequence[np.ndarray], score, rng) -> Ends:
        subjects = confusions[0].shape[1]
        drawn = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=samples)
        middle, moved = 0.0, np.zeros(samples)
        for sign, each in zip((1, -1), confusions, strict=False):
            count = len(each)
            scores = score(np.tensordot(drawn, each, (1, 1)))  # (samples, seeds)
            weights = np.full((samples, count), 1 / count)
            if seeds:
                often = rng.multinomial(count, weights[0], size=samples) / count
                wider = np.sqrt(count / (count - 1)) if widen and count > 1 else 1
                weights = weights + wider * (often - weights)
            middle += sign * score(each.sum(1)).mean()
            moved += sign * (scores * weights).sum(1)
        low, high = np.quantile(moved, (0.025, 0.975))
        return (2 * middle - high, 2 * middle - low) if basic else (low, high)

    return interval


WAYS: dict[str, Callable] = {
    "subjects drawn again": drawn_again(seeds=False),
    "subjects and seeds drawn again": drawn_again(seeds=True),
    "the same, basic": drawn_again(seeds=True, basic=True),
    "the same, seeds widened": drawn_again(seeds=True, widen=True),
    "t, over subjects": held,
    "t, over subjects and seeds (ours)": ours,
}


# ----- what they are worth ------------------------------------------------------------------------


def worlds(subjects: Sequence[int], spreads: Sequence[float], rare: bool) -> list[World]:
    """The grid."""
    grid = itertools.product(subjects, CLIPS, ACCURACIES, spreads)
    return [World(*each, rare=rare) for each in grid]


def covers(ends: Ends, truth: float) -> bool:
    """Whether the interval holds the truth; equal in all but rounding counts."""
    return ends[0] - 1e-9 <= truth <= ends[1] + 1e-9


def coverage(
    rng: np.random.Generator,
    world: World,
    ways: Sequence[Callable],
    scores: Sequence[Callable],
    *,
    runs: int,
    seeds: int,
    repeats: int,
    fixed: bool = False,
) -> np.ndarray:
    """How often intervals hold the truth, (ways, scores): that of one run's score, or of the
    difference of two runs.

    Args:
      fixed: the truth is that of the drawn trainings on other subjects; otherwise it is that of
        other trainings too.
    """
    held = np.zeros((len(ways), len(scores)))
    for _ in range(repeats):
        drawn = draw(rng, world, runs, seeds)
        for s, score in enumerate(scores):
            expected = [
                np.mean([truth(score, world, a) for a in (of_run if fixed else [world.accuracy])])
                for of_run in drawn.accuracies
            ]
            value = expected[0] if runs == 1 else expected[0] - expected[1]
            for w, way in enumerate(ways):
                held[w, s] += covers(way(drawn.confusions, score, rng), value)
    return held / repeats


def print_ways(f) -> None:
    """Every way: over the whole grid, and the worst of its places."""
    rng = np.random.default_rng(f.seed)
    grid, score = worlds(SUBJECTS, SPREADS, f.rare), SCORES[f.score]
    found = {}  # (runs, seeds) -> (worlds, ways)
    with cli.progress("simulating", 2 * len(SEEDS) * len(grid)) as advance:
        for runs, seeds in itertools.product((2, 1), SEEDS):
            rows = []
            for world in grid:
                how = {"runs": runs, "seeds": seeds, "repeats": f.repeats}
                rows.append(coverage(rng, world, list(WAYS.values()), [score], **how)[:, 0])
                advance()
            found[runs, seeds] = 100 * np.array(rows)
    cells = {2: lambda c: f"{100 - c.mean():.1f} ({100 - c.min():.0f})"}
    cells[1] = lambda c: f"{c.mean():.1f} ({c.min():.0f})"
    for runs, what in ((2, "false alarms of a comparison"), (1, "coverage of a score")):
        rows = [
            (name, *(cells[runs](found[runs, seeds][:, w]) for seeds in SEEDS))
            for w, name in enumerate(WAYS)
        ]
        columns = ("", *(f"{seeds} seed{'s' * (seeds > 1)}" for seeds in SEEDS))
        caption = f"{f.score}, %: mean (and worst) over {len(grid)} worlds, {f.repeats} draws each"
        cli.table(what, columns, rows, caption)
    spread = [f"{s:.2f}" for s in SPREADS]
    at = [[k for k, world in enumerate(grid) if world.spread == s] for s in SPREADS]
    for seeds in SEEDS:
        of = found[2, seeds]
        rows = [
            (name, *(f"{100 - of[k, w].mean():.1f}" for k in at)) for w, name in enumerate(WAYS)
        ]
        title = f"false alarms by the spread between seeds, seeds a side: {seeds}"
        cli.table(title, ("", *spread), rows)


def print_coverage(f) -> None:
    """Ours, by the number of subjects: the mean over the grid, and over one seed that is held
    fixed, two seeds and four."""
    rng = np.random.default_rng(f.seed)
    rows, scores = [], list(SCORES.values())
    with cli.progress("simulating", 2 * len(intervals.SUBJECTS)) as advance:
        for name, runs in (("score", 1), ("difference", 2)):
            by_subjects = []
            for subjects in intervals.SUBJECTS:
                parts = [
                    coverage(
                        rng,
                        world,
                        [ours],
                        scores,
                        runs=runs,
                        seeds=seeds,
                        repeats=f.repeats,
                        fixed=seeds == 1,
                    )[0]
                    for seeds in SEEDS
                    for world in worlds([subjects], SPREADS, f.rare)
                ]
                by_subjects.append(np.mean(parts, axis=0))
                advance()
            for score, found in zip(SCORES, np.transpose(by_subjects), strict=True):
                rows.append((f"{name}, {score}", *(f"{share:.3f}" for share in found)))
    caption = f"means over {len(parts)} worlds, {f.repeats} draws each"
    title = "coverage by the number of subjects" + (", one class being rare" if f.rare else "")
    cli.table(title, ("", *map(str, intervals.SUBJECTS)), rows, caption)


def asked(argv):
    """What to simulate.

    Raises:
      UserError: a flag makes no sense.
    """
    p = cli.parser(__doc__)
    help = "print the coverage of the library's intervals by the number of subjects"
    p.add_argument("--coverage", action="store_true", help=help)
    help = "a class that a fifth of the subjects show; otherwise labels are spread evenly"
    p.add_argument("--rare", action="store_true", help=help)
    p.add_argument("--score", choices=SCORES, default="accuracy", help="(accuracy)")
    p.add_argument("--repeats", type=cli.positive, default=200, help="draws of each world (200)")
    p.add_argument("--seed", type=cli.natural, default=0, help="of the simulation (0)")
    return p.parse_args(argv)


def main(argv):
    f = asked(argv)
    if f.coverage:
        print_coverage(f)
    else:
        print_ways(f)


if __name__ == "__main__":
    cli.run(main)
