"""The simulation of intervals draws what it says, and prints every way of making one."""

import numpy as np
import pytest

from benchmarks import intervals
from benchmarks.intervals import World, draw
from ma2mi_jax.evaluation import metrics


def test_drawn_runs_have_the_scores_and_spreads_that_are_asked_for():
    rng = np.random.default_rng(0)
    none = {"between_subjects": 0.0, "run_on_subject": 0.0, "fold": 0.0}
    wide = World(subjects=200, clips=(20, 20), accuracy=0.7, spread=0.04, **none)
    many = draw(rng, wide, runs=1, seeds=300)
    pooled = many.confusions[0].sum(1)
    for score in (metrics.accuracy, metrics.uf1, metrics.uar):
        assert score(pooled).mean() == pytest.approx(0.7, abs=0.01)
    assert metrics.accuracy(pooled).std() == pytest.approx(0.04, abs=0.006)
    assert many.accuracies[0] == pytest.approx(metrics.accuracy(pooled), abs=0.03)

    two = draw(rng, World(4, (4, 14), 0.7, 0.0), runs=2, seeds=3)
    assert [c.shape[:2] for c in two.confusions] == [(3, 4)] * 2
    labels = [c.sum(-1) for c in two.confusions]  # both runs and all seeds: the same clips
    assert (labels[0] == labels[1]).all()
    assert np.ptp(labels[0], axis=0).max() == 0
    assert two.accuracies[0] == pytest.approx(0.7)


def test_a_rare_class_is_shown_by_a_fifth_of_the_subjects():
    rng = np.random.default_rng(0)
    world = World(2000, (20, 20), 0.7, 0.0, rare=True)
    (made,) = draw(rng, world, runs=1, seeds=1).confusions
    labels = made[0].sum(-1)
    assert (labels[:, intervals.RARE] > 0).mean() == pytest.approx(intervals.FEW, abs=0.03)
    for score in (metrics.accuracy, metrics.uf1, metrics.uar):
        true = intervals.truth(score, world, 0.7)
        assert score(made[0].sum(0)) == pytest.approx(true, abs=0.02)
    assert intervals.truth(metrics.uf1, world, 0.7) < 0.68
    even = World(8, (4, 4), 0.7, 0.0)
    assert intervals.truth(metrics.uf1, even, 0.7) == pytest.approx(0.7)


def test_it_prints_every_way(capsys, monkeypatch):
    monkeypatch.setattr(intervals, "SUBJECTS", (8,))
    monkeypatch.setattr(intervals, "CLIPS", ((4, 4),))
    intervals.main(["--repeats=2"])
    said = capsys.readouterr().out
    assert all(said.count(f" {name} ") >= 5 for name in intervals.WAYS)
    for flags in ([], ["--rare"]):
        intervals.main(["--coverage", "--repeats=1", *flags])
        assert "difference, uf1" in capsys.readouterr().out
