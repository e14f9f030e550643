"""Accuracy, UF1 and UAR (paper §4.2, Eq. 11-12), always over predictions pooled across folds."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scores:
    """Pooled scores.

    Attributes:
      n: number of predictions.
      accuracy: correct / n.
      uf1: mean over all classes of F1_i = 2 TP / (2 TP + FP + FN); a class absent from labels and predictions alike counts as 0.
      uar: mean recall over the classes that have a label.
      f1, recall, support: by class; recall is NaN where support is 0.
      confusion: (classes, classes) counts, rows are labels.
      absent: classes with neither a label nor a prediction.
    """

    n: int
    accuracy: float
    uf1: float
    uar: float
    f1: np.ndarray
    recall: np.ndarray
    support: np.ndarray
    confusion: np.ndarray
    absent: tuple[int, ...]


def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> Scores:
    """Scores of `predictions` against `labels`, both (n,) integers in [0, classes).

    Raises:
      ValueError: no predictions, differing lengths or a value outside the classes.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape or labels.ndim != 1 or not labels.size:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape}: expected two vectors of the same length > 0")
    if min(labels.min(), predictions.min()) < 0 or max(labels.max(), predictions.max()) >= classes:
        raise ValueError(f"labels and predictions must lie in [0, {classes})")
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, predictions), 1)
    hits, support, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    f1 = 2 * hits / np.maximum(support + predicted, 1)  # 2 TP + FP + FN = support + predicted
    recall = np.where(support > 0, hits / np.maximum(support, 1), np.nan)
    return Scores(
        n=labels.size,
        accuracy=float(hits.sum() / labels.size),
        uf1=float(f1.mean()),
        uar=float(np.nanmean(recall)),
        f1=f1,
        recall=recall,
        support=support,
        confusion=confusion,
        absent=tuple(np.flatnonzero(support + predicted == 0).tolist()),
    )
