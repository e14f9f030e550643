"""Scores against scikit-learn, also with absent classes; intervals where the answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from ma2mi_jax.evaluation import metrics


@st.composite
def outcomes(draw):
    classes = draw(st.integers(2, 6))
    n = draw(st.integers(1, 60))
    values = st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)
    return np.array(draw(values)), np.array(draw(values)), classes


@settings(deadline=None, max_examples=60)
@given(outcomes())
def test_scores_are_those_of_scikit_learn(case):
    labels, predictions, classes = case
    counts = metrics.confusion(labels, predictions, classes)
    every = list(range(classes))
    np.testing.assert_array_equal(
        counts, sklearn.confusion_matrix(labels, predictions, labels=every)
    )
    assert metrics.accuracy(counts) == pytest.approx(sklearn.accuracy_score(labels, predictions))
    assert metrics.uf1(counts) == pytest.approx(
        sklearn.f1_score(labels, predictions, labels=every, average="macro", zero_division=0)
    )
    present = sorted(set(labels.tolist()))
    assert metrics.uar(counts) == pytest.approx(
        sklearn.recall_score(labels, predictions, labels=present, average="macro", zero_division=0)
    )
    absent = set(every) - set(labels.tolist()) - set(predictions.tolist())
    assert set(metrics.absent(counts).tolist()) == absent


def test_an_absent_class_lowers_uf1_but_not_uar():
    counts = metrics.confusion(np.array([0, 1]), np.array([0, 1]), 3)
    assert metrics.uf1(counts) == pytest.approx(2 / 3)
    assert metrics.uar(counts) == 1
    assert np.isnan(metrics.recall(counts)[2])


@pytest.mark.parametrize(
    ("labels", "predictions"), [([], []), ([0], [0, 1]), ([0, 3], [0, 1]), ([0, 1], [0, -1])]
)
def test_impossible_input_is_refused(labels, predictions):
    with pytest.raises(ValueError, match="labels"):
        metrics.confusion(np.array(labels, int), np.array(predictions, int), 3)


def subjects(hits, n=10):
    """(1, subjects, 2, 2) confusions: subject s has `hits[s]` of n right."""
    return np.array([[[h, n - h], [0, 0]] for h in hits])[None]


def test_bootstrap_covers_the_spread_over_subjects_and_no_more():
    same = metrics.subject_bootstrap(subjects([7] * 12), metrics.accuracy)
    assert same == pytest.approx((0.7, 0.7))
    low, high = metrics.subject_bootstrap(subjects([0, 10] * 50), metrics.accuracy)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)  # the mean of 100 fair coins
    assert high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)


def test_paired_comparison():
    rng = np.random.default_rng(0)
    base = rng.integers(2, 7, size=25)
    better = metrics.paired_by_subject(subjects(base + 2), subjects(base), metrics.accuracy)
    assert better["difference"] == pytest.approx(0.2)
    # every subject gains the same, however they differ among themselves
    assert better["interval95"] == pytest.approx((0.2, 0.2))
    assert better["p"] < 0.01
    equal = metrics.paired_by_subject(
        subjects(base), subjects(rng.permutation(base)), metrics.accuracy
    )
    assert equal["p"] > 0.5
    assert equal["interval95"][0] < 0 < equal["interval95"][1]


def test_p_hears_every_seed_of_both_runs():
    base = np.random.default_rng(0).integers(2, 7, size=25)
    as_good, better = subjects(base), subjects(base + 2)
    mixed = metrics.paired_by_subject(
        np.concatenate([as_good] * 3 + [better] * 6),
        np.concatenate([as_good] * 2),
        metrics.accuracy,
    )
    assert mixed["difference"] == pytest.approx(0.2 * 6 / 9)
    assert mixed["p"] < 0.01
    same = metrics.paired_by_subject(np.concatenate([better] * 3), better, metrics.accuracy)
    assert same["p"] == 1
