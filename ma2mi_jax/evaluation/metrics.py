"""Accuracy, UF1 and UAR (paper §4.2, Eq. 11-12), always over predictions pooled across folds.

Every score is a function of confusion matrices, (..., classes, classes) counts with labels as rows.
So seeds and subjects left out are only more leading axes.
"""

import numpy as np


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix.

    Args:
      labels, predictions: (n,) integers in [0, classes).
      classes: the number of classes.

    Returns:
      (classes, classes) counts, labels as rows.

    Raises:
      ValueError: there is no prediction, or the lengths differ, or a value is outside the classes.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1 or not labels.size:
        raise ValueError(
            f"labels {labels.shape} and predictions {predictions.shape}: expected two vectors of "
            "the same length > 0"
        )
    if min(labels.min(), predictions.min()) < 0 or max(labels.max(), predictions.max()) >= classes:
        raise ValueError(f"labels and predictions must lie in [0, {classes})")
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Correct / N, (...)."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))


def f1(confusion: np.ndarray) -> np.ndarray:
    """F1_i = 2 TP / (2 TP + FP + FN) (Eq. 12), (..., classes).

    It is 0 for a class that neither a label nor a prediction has.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return 2 * hits / np.maximum(confusion.sum(-1) + confusion.sum(-2), 1)


def uf1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 over all classes (Eq. 11), (...). The paper's N_c counts an absent class too."""
    return f1(confusion).mean(-1)


def recall(confusion: np.ndarray) -> np.ndarray:
    """TP / (TP + FN), (..., classes); NaN for a class without labels."""
    support = confusion.sum(-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.where(support > 0, hits / np.maximum(support, 1), np.nan)


def uar(confusion: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that have labels, (...)."""
    return np.nanmean(recall(confusion), -1)


def absent(confusion: np.ndarray) -> np.ndarray:
    """The classes with neither a label nor a prediction; each of them lowers UF1.

    Args:
      confusion: one matrix, (classes, classes).

    Returns:
      (absent classes,) their indices.
    """
    return np.flatnonzero(confusion.sum(0) + confusion.sum(1) == 0)
