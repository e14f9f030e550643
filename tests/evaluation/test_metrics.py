"""Scores against scikit-learn, also with absent classes."""

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
