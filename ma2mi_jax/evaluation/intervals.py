"""Intervals of a score and of the difference of two runs, over subjects and seeds.

A new subject and a new seed both move a score, so both must count. With two to four seeds a
bootstrap of seeds does not know how far another seed would land. So the two variances are estimated
apart and put together, each with its own degrees of freedom (Satterthwaite):

    variance = between subjects + Σ over runs (between seeds − what single clips explain of it, ≥ 0)
    interval = score ± t · √variance

They are variances of jackknife pseudo-values: P_kj = J S_k − (J − 1) S_k without subject j, for
seed k and J subjects, which makes of any smooth score a mean over subjects. The simulation behind
this choice, with the alternatives, is `benchmarks/intervals.py`; what it found stands in
docs/choices.md.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from ma2mi_jax.evaluation import metrics

NOMINAL = 0.95
ROUNDING = 1e-12  # a standard error below this is the rounding of equal numbers

Score = Callable[[np.ndarray], np.ndarray]

# How often the interval holds the truth in simulation, by the number of subjects; between two
# numbers it is interpolated. `benchmarks/intervals.py` prints these rows where it is asked for
# coverage: those of UF1 and UAR with one class that a fifth of the subjects show, for labels that
# are spread evenly are kind to them, and no dataset has such labels.
SUBJECTS = (3, 5, 8, 10, 14, 20, 26, 40)
COVERAGE = {
    "score": {
        metrics.accuracy: (0.93, 0.94, 0.94, 0.94, 0.94, 0.94, 0.94, 0.94),
        metrics.uf1: (0.90, 0.87, 0.87, 0.87, 0.91, 0.94, 0.94, 0.95),
        metrics.uar: (0.92, 0.92, 0.93, 0.93, 0.93, 0.93, 0.94, 0.94),
    },
    "difference": {
        metrics.accuracy: (0.96, 0.97, 0.96, 0.96, 0.96, 0.96, 0.95, 0.95),
        metrics.uf1: (0.97, 0.97, 0.97, 0.96, 0.96, 0.96, 0.96, 0.95),
        metrics.uar: (0.96, 0.97, 0.97, 0.96, 0.96, 0.96, 0.95, 0.95),
    },
}


def of_score(confusions: np.ndarray, score: Score, trainings: Sequence[int] = ()) -> dict[str, Any]:
    """The interval of a pooled score, averaged over seeds.

    Args:
      confusions: (seeds, subjects, classes, classes), each subject's when it was the test subject.
      score: `accuracy`, `uf1` or `uar` of `metrics`.
      trainings: (seeds,) seeds with the same number share a pre-training, so that they count as
        one. By default each seed counts.

    Returns:
      `interval95`: (low, high) in [0, 1].
      `nominal`: what the interval is made for, .95.
      `coverage`: how often such an interval of this score holds the truth in simulation.
      `over`: "subjects and seeds"; or "subjects" with one seed, whose training is then held fixed.
    """
    value, error, freedom, over = _estimate([(1, confusions, trainings)], score)
    known = _known("score", score, confusions.shape[1], over)
    return _interval(value, error, freedom, 0.0) | known


def of_difference(
    ours: np.ndarray,
    theirs: np.ndarray,
    score: Score,
    trainings: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> dict[str, Any]:
    """Is one run better than another over the same subjects?

    Args:
      ours, theirs: as in `of_score`, with the subjects in the same order. The numbers of seeds may
        differ.
      score: `accuracy`, `uf1` or `uar` of `metrics`.
      trainings: of the seeds of either run, as in `of_score`.

    Returns:
      As `of_score`, with `interval95` in [−1, 1], and
      `difference`: of the pooled score, ours − theirs.
      `p`: two-sided, of the t-test with the same error: below .05 where the interval is beside 0.
      `over` is "subjects" where a run has one seed: both trainings are then held fixed.
    """
    sides = [(1, ours, trainings[0]), (-1, theirs, trainings[1])]
    value, error, freedom, over = _estimate(sides, score)
    p = 2 * stdtr(freedom, -abs(value) / error)
    found = {"difference": value, **_interval(value, error, freedom, -1.0), "p": float(p)}
    return found | _known("difference", score, ours.shape[1], over)


def label(interval: Mapping[str, Any], subjects: int) -> str:
    """What an interval may be called: "95 %", or "about 94 % (8 subjects)"."""
    percent, nominal = _percent(interval), round(100 * NOMINAL)
    return f"{nominal} %" if percent == nominal else f"about {percent} % ({subjects} subjects)"


def labels(
    found: Mapping[str, Any], subjects: int, scores: Sequence[str] = ("accuracy", "uf1", "uar")
) -> str:
    """`label` of the intervals of several scores, which may be worth different things: "about 94 %,
    of UF1 91 %, of UAR 92 % (8 subjects)".

    Args:
      found: name of a score -> its interval.
      scores: the names that count.
    """
    worth, *others = (_percent(found[name]) for name in scores)
    if all(each == worth for each in others):
        return label(found[scores[0]], subjects)
    pairs = zip(scores[1:], others, strict=True)
    told = ", ".join(f"of {name.upper()} {each} %" for name, each in pairs)
    return f"about {worth} %, {told} ({subjects} subjects)"


def _percent(interval: Mapping[str, Any]) -> int:
    """How often an interval holds the truth, in percent; no more than it is made for."""
    return round(100 * min(interval["coverage"], NOMINAL))


def shown_p(p: float) -> str:
    """A p-value in four digits. None is zero, so one that would be printed so is `<.0001`."""
    return "<.0001" if p < 0.0001 else f"{p:.4f}"


def _known(what: str, score: Score, subjects: int, over: str) -> dict[str, Any]:
    coverage = float(np.interp(subjects, SUBJECTS, COVERAGE[what][score]))
    return {"nominal": NOMINAL, "coverage": coverage, "over": over}


def _interval(value: float, error: float, freedom: float, least: float) -> dict[str, Any]:
    half = stdtrit(freedom, (1 + NOMINAL) / 2) * error
    return {"interval95": (float(max(value - half, least)), float(min(value + half, 1.0)))}


def _estimate(
    sides: Sequence[tuple[int, np.ndarray, Sequence[int]]], score: Score
) -> tuple[float, float, float, str]:
    """The signed sum of the runs' scores, its standard error, its degrees of freedom, and over what
    it is."""
    value = sum(sign * float(score(c.sum(1)).mean()) for sign, c, _ in sides)
    pseudo = [_by_training(pseudo_values(c, score), of) for _, c, of in sides]
    over = "subjects and seeds" if min(map(len, pseudo)) > 1 else "subjects"
    subjects = pseudo[0].shape[1]
    if subjects < 2:  # one subject tells nothing about another
        return value, np.inf, 1.0, over

    signed = sum(sign * p.mean(0) for (sign, *_), p in zip(sides, pseudo, strict=True))
    variances = [max(signed.var(ddof=1) / subjects, ROUNDING**2)]
    freedoms = [subjects - 1]
    if over == "subjects and seeds":
        variances += map(_between_seeds, pseudo)
        freedoms += [len(p) - 1 for p in pseudo]
    variance = sum(variances)
    shares = (v**2 / f for v, f in zip(variances, freedoms, strict=True))
    return value, float(np.sqrt(variance)), variance**2 / sum(shares), over


def pseudo_values(confusions: np.ndarray, score: Score) -> np.ndarray:
    """The jackknife's pseudo-values: what each subject adds. Their mean is the score, unbiased.

    Args:
      confusions: (seeds, subjects, classes, classes).
      score: `accuracy`, `uf1` or `uar` of `metrics`.

    Returns:
      (seeds, subjects)
    """
    subjects, pooled = confusions.shape[1], confusions.sum(1)
    if subjects < 2:
        return score(pooled)[:, None]
    without = score(pooled[:, None] - confusions)
    return subjects * score(pooled)[:, None] - (subjects - 1) * without


def _by_training(pseudo: np.ndarray, trainings: Sequence[int]) -> np.ndarray:
    """The mean pseudo-values of each training, (trainings, subjects)."""
    if not len(trainings):
        return pseudo
    of = np.asarray(trainings)
    return np.stack([pseudo[of == training].mean(0) for training in np.unique(of)])


def _between_seeds(pseudo: np.ndarray) -> float:
    """The variance of a mean over seeds that is common to all subjects, (seeds, subjects) given.

    Seeds also differ because they differ clip by clip. That part is in the variance between
    subjects already, so it is taken out, by the residuals of the two-way layout.
    """
    seeds, subjects = pseudo.shape
    by_seed = pseudo.mean(1, keepdims=True)
    residuals = pseudo - by_seed - pseudo.mean(0) + pseudo.mean()
    single = (residuals**2).sum() / ((seeds - 1) * (subjects - 1)) / subjects
    return max(float(by_seed.var(ddof=1) - single), 0.0) / seeds
