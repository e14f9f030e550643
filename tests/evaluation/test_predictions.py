"""The oracle's choice of epochs; what is said of intervals."""

import numpy as np
import pytest

from ma2mi_jax import files
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.evaluation.predictions import Predictions, compare, oracle, summary


def test_the_oracle_chooses_for_each_score_by_itself_and_of_equals_the_last():
    labels = [0, 0, 0, 0, 1, 1, 0, 1]
    clips = [Clip(f"{i}", (), subject="ab"[i > 5], label=label) for i, label in enumerate(labels)]
    every_epoch = np.array(
        [
            [0, 0, 0, 0, 0, 1, 1, 0],  # a: 5 of 6 right, F1 .89 and .67
            [0, 0, 0, 1, 1, 1, 1, 1],  # a: 5 of 6 right, F1 .86 and .80: the best F1; b: 1 of 2
            [0, 0, 0, 0, 1, 0, 0, 0],  # a: 5 of 6 right: ties go to the later; b: 1 of 2, too
            [0, 0, 1, 1, 1, 1, 1, 1],  # a: 4 of 6 right, the last epoch
        ]
    )[:, None]
    folds = ["a"] * 6 + ["b"] * 2
    probabilities = np.eye(2, dtype=np.float32)[every_epoch[-1]]
    found = oracle(Predictions(clips, folds, [0], probabilities), every_epoch, 2)

    assert found["accuracy"] == pytest.approx(6 / 8)
    # UF1: epoch 2 of a, with 3 + 2 right; of b the best F1 is 1/3 at epochs 2, 3 and 4: the last,
    # which says 1 of both.
    hits, wrong_of_0, wrong_of_1 = (3, 3), 2, 0
    f1 = [2 * hits[0] / (2 * hits[0] + wrong_of_0), 2 * hits[1] / (2 * hits[1] + wrong_of_0)]
    assert wrong_of_1 == 0
    assert found["uf1"] == pytest.approx(np.mean(f1))


def test_intervals_stand_beside_what_they_are_worth(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    clips = [Clip(f"{i}", (), subject=f"{i // 5}", label=label) for i, label in enumerate(labels)]

    def run(*seeds, runs=()):
        right = rng.random((len(seeds), len(clips))) < 0.5
        guessed = np.where(right, labels, rng.integers(0, 3, right.shape))
        probabilities = np.eye(3, dtype=np.float32)[guessed]
        return Predictions(clips, ["all"] * len(clips), seeds, probabilities, runs)

    ours, one = run(0, 1, 2), run(0)
    for score, found in compare(ours, run(0, 1), 3).items():
        kept = summary(ours, "abc")["seeds"][score]
        assert kept.keys() >= {"values", "mean", "std", "interval95", "nominal", "coverage"}
        assert kept["interval95"][0] <= kept["mean"] <= kept["interval95"][1]
        assert (kept["over"], found["over"]) == ("subjects and seeds",) * 2
        assert found["difference"] == pytest.approx(kept["mean"] - found["theirs"])
    assert compare(ours, one, 3)["accuracy"]["over"] == "subjects"
    assert summary(one, "abc")["seeds"]["uf1"]["over"] == "subjects"
    # of several runs each counts once; of one run, its seeds
    assert list(run(0, 1, 0, 1, runs=[0, 0, 1, 1]).trainings) == [0, 0, 1, 1]
    assert list(run(0, 1, runs=[0, 0]).trainings) == []
    files.write_json(tmp_path / "results.json", summary(ours, "abc") | compare(ours, one, 3))
