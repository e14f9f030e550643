"""Finished runs side by side: what is printed and written, and what cannot be compared."""

import csv

import compare
import numpy as np
import pytest
from stored_runs import NAMES, write_config, write_results

from ma2mi_jax import files
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import comparison, intervals, metrics
from ma2mi_jax.evaluation import predictions as scored
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

TARGET = DatasetSpec("synthetic", "target")


def finetuning(folder, hits=0.5, **how):
    """A finished fine-tuning in which about so many of 24 clips are right."""
    write_config(FinetuneRun(TARGET, preset="tiny", run=str(folder)))
    write_results(folder, hits=hits, **{"clips": 24, "seed": round(100 * hits)} | how)
    return folder


@pytest.fixture
def three(tmp_path):
    hits = {"from-none": 0.3, "from-maer": 0.6, "from-ma2mi": 0.9}
    return [finetuning(tmp_path / name, share) for name, share in hits.items()]


def test_the_others_are_compared_with_the_first(three, capsys):
    compare.main([str(path) for path in three])
    said = capsys.readouterr().out
    first, *_ = three
    assert {path.name for path in first.iterdir()} >= {"compare.json", "compare.csv", "compare.png"}
    found = files.read_json(first / "compare.json")
    a, _, c = (scored.read_predictions(path / "predictions.csv", NAMES) for path in three)
    expected = scored.compare(c, a, len(NAMES))
    last = found["differences"][1]
    assert (last["run"], last["minus"]) == (str(three[2]), str(first))
    for name in scored.SCORES:
        assert last[name]["difference"] == pytest.approx(expected[name]["difference"])
        assert last[name]["interval95"] == pytest.approx(expected[name]["interval95"])
        mean = found["runs"][2][name]["mean"] - found["runs"][0][name]["mean"]
        assert last[name]["difference"] == pytest.approx(mean)

    rows = list(csv.DictReader((first / "compare.csv").read_text().splitlines()))
    assert [row["minus"] for row in rows] == [""] * 9 + [str(first)] * 6
    assert float(rows[12]["value"]) == pytest.approx(last["accuracy"]["difference"], abs=1e-6)
    assert {(row["seeds"], row["subjects"], row["n"]) for row in rows} == {("2", "6", "24")}

    lines = said.splitlines()
    assert lines[:3] == [f"{letter}  {path}" for letter, path in zip("ABC", three, strict=True)]
    assert f"C − A   accuracy      {last['accuracy']['difference']:+.4f}" in said
    assert "6 subjects, N = 24" in said
    assert "over subjects and seeds of fine-tuning" in said
    assert "not corrected for the number of pairs" in said
    assert max(len(line) for line in lines if "(" in line and "0." in line) <= 80


def test_equal_runs_have_a_difference_of_zero_and_worlds_apart_no_p_of_zero(tmp_path, capsys):
    how = {"clips": 200, "seed": 1, "seeds": 1}
    one, same = (finetuning(tmp_path / name, 0.0, **how) for name in ("one", "same"))
    compare.main([str(one), str(same)])
    said = " ".join(capsys.readouterr().out.split())
    assert "accuracy +0.0000 +0.00 to +0.00 1.0000" in said
    assert "-0.0" not in said
    better = finetuning(tmp_path / "better", 1.0, **how)
    compare.main([str(one), str(better)])
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("<.0001") == 3


def test_one_seed_and_other_folds_are_told(three, tmp_path, capsys):
    alone = finetuning(tmp_path / "alone", seeds=1)
    text = (alone / "predictions.csv").read_text()
    (alone / "predictions.csv").write_text(text.replace(",s1,s1,", ",s1,other,"))
    out = tmp_path / "new" / "folder"
    compare.main([str(three[0]), str(alone), f"--out={out}"])
    said = capsys.readouterr().out
    assert "over subjects alone where a run has one seed (B)" in said
    assert f"{alone}: other folds than {three[0]}" in said
    assert "not corrected" not in said
    assert sorted(path.name for path in out.iterdir()) == [
        "compare.csv",
        "compare.json",
        "compare.png",
    ]


def test_runs_over_other_samples_are_refused_with_what_differs(three, tmp_path):
    first, other = three[0], tmp_path / "other"

    def refusal(**how):
        with pytest.raises(UserError) as error:
            comparison.compare([[first], [finetuning(other, **how)]])
        return str(error.value)

    more = refusal(clips=26)
    assert more.startswith(f"{other}: has other clips, subjects or labels (2 of 26 clips are there")
    assert "alone, such as clip24)" in more
    assert "(2 of 24 clips are here alone, such as clip22)" in refusal(clips=22)

    finetuning(other)
    text = (other / "predictions.csv").read_text()
    swapped = text.replace("clip0,s0,s0,0,happiness", "clip0,s0,s0,0,disgust")
    swapped = swapped.replace("clip4,s1,", "clip4,s9,")
    (other / "predictions.csv").write_text(
        swapped.replace("clip0,s0,s0,1,happiness", "clip0,s0,s0,1,disgust")
    )
    with pytest.raises(UserError) as error:
        comparison.compare([[first], [other]])
    told = "(1 have another subject, such as clip4, s9 there and s1 here; "
    told += "1 have another label, such as clip0, disgust there and happiness here)"
    assert told in str(error.value)

    finetuning(other)
    record = files.read_json(other / "results.json")
    files.write_json(other / "results.json", record | {"classes": ["happiness", "fear"]})
    with pytest.raises(UserError, match=r"its classes are happiness, fear, and those of .* are"):
        comparison.compare([[first], [other]])


def test_what_is_no_run_with_a_score_is_refused(three, tmp_path):
    def refusal(*paths):
        with pytest.raises(UserError) as error:
            comparison.compare([[path] for path in paths])
        return str(error.value)

    assert "expected two different runs or more" in refusal(three[0])
    assert "expected two different runs or more" in refusal(three[0], three[0])
    write_config(PretrainRun(DatasetSpec("synthetic", "source"), run=str(tmp_path / "pre")))
    assert "not a fine-tuning run" in refusal(three[0], tmp_path / "pre")
    write_config(FinetuneRun(TARGET, run=str(tmp_path / "begun")))
    assert "is not finished" in refusal(tmp_path / "begun", three[0])
    record = files.read_json(three[1] / "results.json")
    files.write_json(three[1] / "results.json", record | {"no_score": "nobody is left"})
    assert "trained on all subjects, so that it has no score" in refusal(*three)


def test_runs_that_commas_join_are_one_method_pre_trained_several_times(tmp_path, capsys):
    """The interval is that of the seeds counted once a pre-training, not of six seeds."""
    hits = {"a-0": 0.3, "a-1": 0.35, "b-0": 0.5, "b-1": 0.8, "b-2": 0.95}
    a0, a1, b0, b1, b2 = (finetuning(tmp_path / name, share) for name, share in hits.items())
    for path in (a0, a1, b0, b1, b2):
        record = files.read_json(path / "results.json")
        files.write_json(path / "results.json", record | {"init": f"runs/pre-{path.name}"})
    compare.main([f"{a0},{a1}", f"{b0},{b1},{b2}"])
    said = capsys.readouterr().out
    found = files.read_json(a0 / "compare.json")
    assert [each["run"] for each in found["runs"]] == [f"{a0},{a1}", f"{b0},{b1},{b2}"]
    ours, theirs = (
        [scored.read_predictions(path / "predictions.csv", NAMES) for path in paths]
        for paths in ((b0, b1, b2), (a0, a1))
    )
    a, b = (
        np.concatenate([scored.confusions_by_subject(p, p.classes, len(NAMES)) for p in parts])
        for parts in (ours, theirs)
    )
    expected = intervals.of_difference(a, b, metrics.accuracy, ([0, 0, 1, 1, 2, 2], [0, 0, 1, 1]))
    of_seeds = intervals.of_difference(a, b, metrics.accuracy)
    between = found["differences"][0]["accuracy"]
    assert between["interval95"] == pytest.approx(expected["interval95"])
    assert between["interval95"][0] < of_seeds["interval95"][0]
    assert [each["accuracy"] for each in found["runs"][1]["folders"]] == [
        pytest.approx(metrics.accuracy(a[k : k + 2].sum(1)).mean()) for k in (0, 2, 4)
    ]
    assert "6 in 3 runs" in said
    assert "over subjects and over pre-trainings (A, B;" in said
    assert "pre-trained once" not in said


def test_one_pre_training_is_told_and_the_same_one_twice_refused(three, tmp_path, capsys):
    none, maer, ma2mi = three
    for path, init in ((none, "none"), (maer, "runs/maer"), (ma2mi, "runs/ma2mi")):
        record = files.read_json(path / "results.json")
        files.write_json(path / "results.json", record | {"init": init})
    compare.main([str(none), str(maer), str(ma2mi)])
    assert f"pre-trained once, which is held fixed: {maer}, {ma2mi}." in capsys.readouterr().out

    again = finetuning(tmp_path / "again", 0.8)
    record = files.read_json(again / "results.json")
    files.write_json(again / "results.json", record | {"init": "runs/ma2mi"})
    with pytest.raises(UserError, match=r"starts from runs/ma2mi, as .*from-ma2mi does"):
        compare.main([str(none), f"{ma2mi},{again}"])


def test_a_folder_may_have_a_comma_in_its_name(three, tmp_path, capsys):
    comma = finetuning(tmp_path / "a,b", 0.8)
    compare.main([str(three[0]), str(comma)])
    assert f"B  {comma}" in capsys.readouterr().out
