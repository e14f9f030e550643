"""Accuracy, UF1 and UAR (paper §4.2, Eq. 11-12), always over predictions pooled across folds.

Every score is a function of confusion matrices, (..., classes, classes) counts with labels as rows.
So the samples of a bootstrap are only one more leading axis.
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


def subject_bootstrap(
    confusions: np.ndarray, score, seed: int = 0, samples: int = 2000
) -> tuple[float, float]:
    """95 % interval of a pooled score, by drawing subjects again with replacement.

    Args:
      confusions: (seeds, subjects, classes, classes), each subject's when it was the test subject.
      score: `accuracy`, `uf1` or `uar`; it is averaged over seeds.
      seed: of the draws.
      samples: how many times subjects are drawn.

    Returns:
      The lower and the upper end.
    """
    subjects = confusions.shape[1]
    rng = np.random.default_rng(seed)
    # (samples, subjects) how often each subject is drawn in each sample
    drawn = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=samples)
    pooled = np.einsum("bs,kscd->bkcd", drawn, confusions)
    low, high = np.quantile(score(pooled).mean(1), (0.025, 0.975))
    return float(low), float(high)


def paired_by_subject(
    ours: np.ndarray, theirs: np.ndarray, score, seed: int = 0, samples: int = 2000
) -> dict[str, float]:
    """Is one run better than another over the same subjects?

    Args:
      ours, theirs: (seeds, subjects, classes, classes) of each run, with the subjects in the same
        order. The numbers of seeds may differ.
      score, seed, samples: as for `subject_bootstrap`.

    Returns:
      `difference`: of the pooled score, ours − theirs.
      `interval95`: (low, high), by drawing subjects again with replacement, the same for both runs.
      `p`: two-sided, of the permutation test that exchanges the two runs within random subjects.
    """
    subjects = ours.shape[1]
    rng = np.random.default_rng(seed)

    def pooled(confusions, weights):  # weights (samples, subjects)
        return np.einsum("bs,kscd->bkcd", weights, confusions)

    def mean(counts):
        return score(counts).mean(1)

    once = np.ones((1, subjects))  # each subject once
    observed = float((mean(pooled(ours, once)) - mean(pooled(theirs, once)))[0])

    drawn = rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=samples)
    low, high = np.quantile(mean(pooled(ours, drawn)) - mean(pooled(theirs, drawn)), (0.025, 0.975))

    # Exchanging needs the same number of seeds on both sides. So each side is repeated until the
    # numbers are the same, which does not change its mean.
    kept, count = rng.integers(0, 2, (samples, subjects)), np.lcm(len(ours), len(theirs))
    a, b = (np.tile(each, (count // len(each), 1, 1, 1)) for each in (ours, theirs))
    exchanged = mean(pooled(a, kept) + pooled(b, 1 - kept)) - mean(
        pooled(b, kept) + pooled(a, 1 - kept)
    )
    p = (1 + np.sum(np.abs(exchanged) >= abs(observed) - 1e-12)) / (1 + samples)
    return {"difference": observed, "interval95": (float(low), float(high)), "p": float(p)}
