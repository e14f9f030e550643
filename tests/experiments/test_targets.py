"""Fine-tunings over other targets than one dataset: several at once, and clips of one's own."""

import csv
import dataclasses
import functools
import json

import commands
import miniatures
import pytest

from ma2mi_jax.datasets.common import merged
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.training import finetuning_run, run_files
from ma2mi_jax.training.run_config import FinetuneRun

SMALL = ["--preset=smoke", "--epochs=1", "--batch-size=4", "--init=none", "--fold-chunk=1"]


@pytest.fixture(scope="module")
def command():
    environment = commands.one_device()

    def run(script, *flags):
        done = commands.run(script, *flags, environment=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    miniatures.megc2019(root)
    return root


@pytest.fixture(scope="module")
def lodo(command, data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "lodo"
    flags = ["--target=casme2,samm,smic", "--protocol=lodo", f"--data-root={data}"]
    return run, command("finetune", *flags, *SMALL, f"--run={run}")


CLIPS_OF = {name: {"negative": 2, "positive": 1} for name in ("casme2", "samm", "smic")}
"""SAMM's miniature has no surprise, so that the three share two classes."""


def test_each_of_several_datasets_is_tested_by_what_learned_from_the_others(lodo):
    run, done = lodo
    resolved = json.loads((run / "config.json").read_text())["resolved"]
    shared = resolved["shared"]
    assert (shared["classes"], shared["clips_of"]) == (["negative", "positive"], CLIPS_OF)
    assert shared["class_of"]["casme2"] == {
        "happiness": "positive", "disgust": "negative", "repression": "negative",
    }  # fmt: skip
    assert "casme2: 3 clips of shared classes: negative 2 (disgust, repression), positive 1" in (
        done.stderr
    )
    assert "samm: clips of other classes than negative, positive, left out: 1" in done.stderr

    results = json.loads((run / "results.json").read_text())
    assert (results["n"], results["target"], results["protocol"]) == (
        *(9, "casme2, samm, smic"),
        "lodo",
    )
    assert [fold for _, fold in results["members"]] == list(CLIPS_OF)
    for name, scores in results["per_dataset"].items():
        assert scores["n"] == 3
        assert scores["accuracy"] == pytest.approx(results["per_fold"][name]["accuracy"])
        assert {"uf1", "uar"} < set(scores)
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["fold"] == row["subject"].partition("/")[0] for row in rows)
    assert {row["subject"] for row in rows} >= {"casme2/sub01", "smic/s01"}, "never one by name"


def test_a_run_over_several_datasets_is_evaluated_where_they_lie_now(command, lodo, data, tmp_path):
    moved = tmp_path / "samm elsewhere"
    moved.symlink_to(data / "samm")
    done = command("evaluate", f"--run={lodo[0]}", f"--data-root=samm={moved}")
    assert "evaluation agrees with the run" in done.stdout


def test_two_runs_over_the_same_datasets_are_compared(command, lodo, data, tmp_path):
    flags = ["--target=smic,samm,casme2", f"--data-root={data}", f"--compare={lodo[0]}"]
    done = command("finetune", *flags, *SMALL, f"--run={tmp_path / 'run'}")
    assert "the same subjects, two runs" in done.stdout
    compared = json.loads((tmp_path / "run" / "results.json").read_text())["compare"]
    assert compared["accuracy"]["difference"] == 0, "whatever the order of the names"


def test_the_classes_of_a_set_are_shared_by_the_dataset_to_test_on(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MA2MI_CACHE", str(tmp_path))
    casme2 = DatasetSpec("casme2", "target", root=str(data / "casme2"), classes=3)
    run = FinetuneRun(casme2, test_target="smic", test_root=str(data / "smic"))
    run_files.check(dataclasses.replace(run, test_target="samm", run=str(tmp_path / "run")))
    with pytest.raises(UserError, match=r"classes=3: test_target=synthetic has no such class set"):
        run_files.check(dataclasses.replace(run, test_target="synthetic", test_root=None))
    shared = finetuning_run.read_shared(run.datasets, 64, across=True)
    assert finetuning_run.told_classes(shared) == {
        "classes": ("negative", "positive", "surprise"),
        "class_of": {name: {c: c for c in merged.THREE} for name in ("casme2", "smic")},
        "clips_of": {
            "casme2": {"negative": 2, "positive": 1, "surprise": 2},
            "smic": {"negative": 2, "positive": 1, "surprise": 1},
        },
    }
    asked = {"name": "cross", "train": "casme2", "test": "smic", "folds_file": None}
    (fold,) = finetuning_run.make_folds(asked, shared.dataset.clips)
    assert (len(fold.train), len(fold.test)) == (5, 4)


def talking(number, peak):
    """A frame of a face whose mouth opens until the frame `peak`."""
    return miniatures.person(mouth=max(0, 1 - abs(number - peak) / 3))


def test_clips_of_ones_own_from_a_sheet_to_a_prediction(command, tmp_path):
    """As many clips, classes and folds as `lodo` has, so that no program is compiled again. Frames
    are uncropped: the prediction crops by the detector that the run recorded."""
    own, run = tmp_path / "own", tmp_path / "run"
    rows = ["subject,clip,onset,apex,label"]
    for number, subject in enumerate(("anna", "ben", "cleo")):
        for label, peak in (("happiness", 14), ("disgust", 15), ("disgust", 16)):
            name = f"{subject}/{label}_{peak}"
            frame = functools.partial(talking, peak=peak)
            miniatures.clip(own / name, range(11, 18 + number), image=frame)
            rows.append(f"{subject},{name},11,{peak},{label}")
    (own / "annotations.csv").write_text("\n".join(rows))
    done = command("finetune", "--target=csv", f"--data-root={own}", *SMALL, f"--run={run}")
    assert "N = 9" in done.stdout
    results = json.loads((run / "results.json").read_text())
    assert set(results["per_fold"]) == {"anna", "ben", "cleo"}
    assert "evaluation agrees with the run" in command("evaluate", f"--run={run}").stdout
    out = tmp_path / "out"
    clip = own / "ben" / "disgust_16"
    done = command("predict", f"--run={run}", str(clip), f"--out={out}")
    recorded = json.loads((run / "config.json").read_text())["resolved"]["detector"]
    predicted = json.loads((out / "predictions.json").read_text())
    assert predicted["detector"] == recorded == "haar"
    assert "faces are found by haar" in done.stdout
    (entry,) = predicted["clips"]
    assert entry["prediction"] in ("happiness", "disgust")


def test_clips_of_one_class_cannot_be_told_apart(tmp_path):
    for name in ("anna", "ben"):
        miniatures.clip(tmp_path / name, range(1, 10), "{}.jpg", 5)
    text = "subject,clip,onset,apex,label\nanna,anna,1,5,fear\nben,ben,1,5,Fear\n"
    (tmp_path / "annotations.csv").write_text(text)
    spec = DatasetSpec("csv", "target", root=str(tmp_path))
    run = FinetuneRun(spec, preset="smoke", run=str(tmp_path / "run"))
    with pytest.raises(UserError, match="expected clips of two classes or more, found fear alone"):
        finetuning_run.carry_out(run)
    assert not (tmp_path / "run").exists()
