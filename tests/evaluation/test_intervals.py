"""Intervals over subjects and seeds: by hand, what must widen them, and what they are worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.intervals import World, coverage, ours
from ma2mi_jax.evaluation import intervals, metrics
from ma2mi_jax.evaluation.intervals import of_difference, of_score

SCORES = (metrics.accuracy, metrics.uf1, metrics.uar)


def runs(hits, n=10):
    """(seeds, subjects, 2, 2) confusions from (seeds, subjects): how many of n clips are right."""
    hits = np.atleast_2d(hits)
    return np.stack([hits, n - hits, 0 * hits, 0 * hits], axis=-1).reshape(*hits.shape, 2, 2)


@st.composite
def confusions(draw):
    """(seeds, subjects, 3, 3) of 2 to 4 seeds over the same clips, every class with labels."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    seeds, subjects, clips = draw(st.integers(2, 4)), draw(st.integers(3, 8)), 6
    labels = np.tile(np.arange(3), (subjects, clips // 3))
    guessed = rng.integers(0, 3, (seeds, subjects, clips))
    guessed = np.where(rng.random(guessed.shape) < 0.4, labels, guessed)
    return np.array(
        [[metrics.confusion(labels[j], seed[j], 3) for j in range(subjects)] for seed in guessed]
    )


def width(found):
    low, high = found["interval95"]
    return high - low


# ----- by hand ------------------------------------------------------------------------------------


def test_with_one_seed_it_is_the_t_interval_over_subjects():
    hits = np.array([2, 5, 6, 9, 7, 4])
    found = of_score(runs(hits), metrics.accuracy)
    error = stats.sem(hits / 10)
    expected = stats.t.interval(0.95, 5, loc=hits.mean() / 10, scale=error)
    assert found["interval95"] == pytest.approx(expected)
    assert found["over"] == "subjects"

    other = np.array([4, 5, 5, 8, 7, 1])
    compared = of_difference(runs(hits), runs(other), metrics.accuracy)
    test = stats.ttest_rel(hits, other)
    assert compared["difference"] == pytest.approx((hits - other).mean() / 10)
    assert compared["p"] == pytest.approx(test.pvalue)
    assert np.multiply(10, compared["interval95"]) == pytest.approx(test.confidence_interval())
    assert compared["over"] == "subjects"


def test_seeds_that_shift_every_subject_alike_are_a_variance_of_their_own():
    """Two seeds, .4 and .6 for every subject: the subjects do not differ, so the interval is that
    of two measurements."""
    found = of_score(runs([[4] * 5, [6] * 5]), metrics.accuracy)
    assert found["over"] == "subjects and seeds"
    assert found["interval95"] == pytest.approx((0, 1))  # .5 ± 12.7 · .1, cut off
    four = of_score(runs([[4] * 5, [6] * 5, [5] * 5, [5] * 5]), metrics.accuracy)
    half = stats.t.ppf(0.975, 3) * np.std([4, 6, 5, 5], ddof=1) / 10 / 2
    assert four["interval95"] == pytest.approx((0.5 - half, 0.5 + half))


def test_variances_of_subjects_and_of_both_runs_seeds_add_up():
    subjects = np.array([-2, -1, 0, 1, 2])
    ours, theirs = 5 + subjects + np.array([[0], [1], [2]]), np.array([[3] * 5, [4] * 5])
    found = of_difference(runs(ours, 20), runs(theirs, 20), metrics.accuracy)
    parts = np.array([2.5 / 5, 1 / 3, 0.5 / 2]) / 20**2  # in clips of 20; no seed by subject
    freedom = parts.sum() ** 2 / (parts**2 / [4, 2, 1]).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum())
    assert found["difference"] == pytest.approx(2.5 / 20)
    assert found["interval95"] == pytest.approx((2.5 / 20 - half, 2.5 / 20 + half))


def test_seeds_that_differ_clip_by_clip_only_add_nothing():
    """Such differences are already in the spread of subjects: here they cancel out in each seed."""
    hits = np.array([[4, 6, 4, 6], [6, 4, 6, 4]])
    base = np.array([0, 1, 2, 4])
    both = of_score(runs(base + hits, 20), metrics.accuracy)
    one = of_score(runs(base + hits.mean(0, dtype=int), 20), metrics.accuracy)
    assert both["interval95"] == pytest.approx(one["interval95"])


def test_every_subject_gains_the_same():
    base = np.random.default_rng(0).integers(2, 7, size=25)
    better = of_difference(runs(base + 2), runs(base), metrics.accuracy)
    # however subjects differ among themselves
    assert better["interval95"] == pytest.approx((0.2, 0.2))
    assert better["p"] < 1e-6


def test_one_subject_tells_nothing():
    one = runs([[4], [6]])
    assert of_score(one, metrics.uf1)["interval95"] == (0, 1)
    compared = of_difference(one, one + 1, metrics.accuracy)
    assert (compared["interval95"], compared["p"]) == ((-1, 1), 1)


# ----- what must hold -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(confusions(), st.sampled_from(SCORES))
def test_a_run_against_itself(run, score):
    found = of_difference(run, run, score)
    low, high = found["interval95"]
    assert found["difference"] == 0
    assert found["p"] == pytest.approx(1)
    assert low == pytest.approx(-high)
    assert found == of_difference(run, run, score)
    one = of_difference(run[:1], run[:1], score)
    assert one["interval95"] == pytest.approx((0, 0), abs=1e-9)
    repeated = of_difference(np.tile(run[:1], (3, 1, 1, 1)), run[:1], score)
    assert repeated["p"] == pytest.approx(1, abs=1e-3)  # up to the rounding of a mean


@settings(deadline=None, max_examples=40)
@given(confusions(), confusions(), st.sampled_from(SCORES))
def test_p_says_what_the_interval_says(ours, theirs, score):
    subjects = min(ours.shape[1], theirs.shape[1])
    ours, theirs = ours[:, :subjects], theirs[:, :subjects]
    found, back = of_difference(ours, theirs, score), of_difference(theirs, ours, score)
    low, high = found["interval95"]
    assert low <= found["difference"] <= high
    assert (found["p"] < 0.05) == (not low <= 0 <= high)
    assert np.negative(back["interval95"])[::-1] == pytest.approx(found["interval95"])
    assert back["p"] == pytest.approx(found["p"])


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_a_larger_spread_between_seeds_widens_the_interval(seeds):
    rng = np.random.default_rng(seeds)
    base, shift = rng.integers(20, 60, size=12), np.arange(seeds)[:, None] - (seeds - 1) / 2
    widths = []
    for spread in (0, 4, 8, 16):
        run = runs((base + spread * shift).astype(int), 100)
        other = runs(rng.permuted(np.tile(base, (seeds, 1)), axis=1), 100)
        assert of_difference(run, other, metrics.accuracy)["over"] == "subjects and seeds"
        widths.append(width(of_score(run, metrics.accuracy)))
    assert widths == sorted(widths)
    assert widths[-1] > 1.5 * widths[0]


def test_seeds_of_one_pre_training_count_once():
    """Three fine-tunings of either of two pre-trainings are no six trainings."""
    base = np.array([3, 4, 5, 6, 7])
    run = runs(base + np.array([[0], [0], [0], [2], [2], [2]]))
    each = of_score(run, metrics.accuracy)
    once = of_score(run, metrics.accuracy, [0, 0, 0, 1, 1, 1])
    two = of_score(run[[0, 3]], metrics.accuracy)
    assert once["interval95"] == pytest.approx(two["interval95"])
    assert width(once) > width(each)
    fixed = of_difference(run, run, metrics.accuracy, ([0] * 6, [0, 0, 0, 1, 1, 1]))
    assert fixed["over"] == "subjects"


# ----- what they are worth ------------------------------------------------------------------------


def simulated(*, subjects, spread=0.03, **how):
    """The share of our intervals that hold the truth, over two accuracies and three scores."""
    return np.mean(by_score(subjects=subjects, spread=spread, **how))


def by_score(*, subjects, spread=0.03, rare=False, **how):
    """The same, of each of SCORES."""
    rng = np.random.default_rng(0)
    places = [World(subjects, (4, 14), accuracy, spread, rare=rare) for accuracy in (0.55, 0.85)]
    return np.mean([coverage(rng, world, [ours], SCORES, **how)[0] for world in places], axis=0)


@pytest.mark.parametrize("seeds", [2, 4])
def test_of_equal_runs_one_comparison_in_twenty_is_a_false_alarm(seeds):
    assert 0.93 < simulated(subjects=20, runs=2, seeds=seeds, repeats=250) < 0.98


def test_one_seed_a_side_says_nothing_about_other_seeds():
    how = {"subjects": 20, "runs": 2, "seeds": 1, "repeats": 250}
    assert 0.92 < simulated(**how, fixed=True) < 0.98  # about these two trainings
    assert simulated(**how, spread=0.04) < 0.88  # about others


@pytest.mark.parametrize("subjects", [8, 20])
def test_an_interval_is_called_what_it_is_worth(subjects):
    found = of_score(runs(np.ones((2, subjects), int)), metrics.accuracy)
    worth = simulated(subjects=subjects, runs=1, seeds=2, repeats=300)
    assert worth == pytest.approx(found["coverage"], abs=0.025)
    assert found["nominal"] == 0.95


@pytest.mark.parametrize("subjects", [8, 20])
def test_an_interval_of_uf1_is_called_what_it_is_worth_with_a_rare_class(subjects):
    """A class that a fifth of the subjects show: one subject more or less moves UF1 by much."""
    worth = by_score(subjects=subjects, rare=True, runs=1, seeds=2, repeats=300)
    run = runs(np.ones((2, subjects), int))
    called = [of_score(run, score)["coverage"] for score in SCORES]
    assert worth == pytest.approx(called, abs=0.03)
    if subjects == 8:
        assert max(worth[1], called[1]) < 0.9 < min(worth[0], called[0])


def test_no_p_is_printed_as_zero():
    assert [intervals.shown_p(p) for p in (1.0, 0.04321, 1e-4)] == ["1.0000", "0.0432", "0.0001"]
    assert intervals.shown_p(9e-5) == intervals.shown_p(0.0) == "<.0001"


def test_labels():
    assert intervals.label({"coverage": 0.96}, 8) == "95 %"
    assert intervals.label({"coverage": 0.94}, 8) == "about 94 % (8 subjects)"
    few = of_difference(runs([1, 2]), runs([2, 1]), metrics.accuracy)  # fewer than were simulated
    assert few["coverage"] == intervals.COVERAGE["difference"][metrics.accuracy][0]

    worth = {"accuracy": 0.94, "uf1": 0.87, "uar": 0.93}
    found = {name: {"coverage": each} for name, each in worth.items()}
    assert intervals.labels(found, 8) == "about 94 %, of UF1 87 %, of UAR 93 % (8 subjects)"
    assert intervals.labels(found, 8, ("accuracy", "uf1")) == "about 94 %, of UF1 87 % (8 subjects)"
    fine = {name: {"coverage": 0.96} for name in worth}
    assert intervals.labels(fine, 8) == "95 %"
