"""Runs are found again, and nothing that lies among them keeps them from being listed."""

import json
import os
import pathlib

import pytest
import runs
from stored_runs import write_config, write_results

from ma2mi_jax import files
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import lock
from ma2mi_jax.runs.folder import typed_again
from ma2mi_jax.training import run_list
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

SOURCE = DatasetSpec("synthetic", "source")
TARGET = DatasetSpec("synthetic", "target")
PRETRAINED = {"clips_used": 32, "final": {"loss_rec": 0.03, "copy_baseline": 0.04}}


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ("experiments/pretrain.py --steps=2", "python experiments/pretrain.py --steps=2"),
        ("{}/wheel/ma2mi_jax/experiments/finetune.py --run=a", "ma2mi finetune --run=a"),
        (
            "'{}/my wheel/ma2mi_jax/experiments/pretrain.py' '--run=a b'",
            "ma2mi pretrain '--run=a b'",
        ),
        (
            "{}/clone/ma2mi_jax/experiments/pretrain.py",
            "python {}/clone/ma2mi_jax/experiments/pretrain.py",
        ),
        ("experiments/pretrain.py '--run", "experiments/pretrain.py '--run"),
        ("", ""),
    ],
)
def test_a_command_is_shown_as_it_is_typed(tmp_path, words, typed):
    for wheel in ("wheel", "my wheel"):
        (tmp_path / wheel / "ma2mi_jax" / "experiments").mkdir(parents=True)
        (tmp_path / wheel / "ma2mi_jax" / "__init__.py").touch()
    command = words.replace("{}", str(tmp_path))
    assert typed_again(command) == typed.replace("{}", str(tmp_path))


def pretraining(folder, steps=()):
    """A pre-training of 70 steps with checkpoints of these `steps`."""
    write_config(PretrainRun(SOURCE, preset="tiny", space="pixel", steps=70, run=str(folder)))
    for step in steps:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    return folder


def finetuning(folder, made="2026-11-28T10:00:00", **more):
    """A fine-tuning of six members, of three folds under two seeds, two at once."""
    content = write_config(FinetuneRun(TARGET, preset="tiny", seeds=2, epochs=9, run=str(folder)))
    record = files.read_json(folder / "config.json")
    record["resolved"] = content | {"folds": {"a": "f1", "b": "f2", "c": "f3"}, "fold_chunk": 2}
    files.write_json(folder / "config.json", record | {"made": made, "commit": "ec77d1c"} | more)
    return folder


def looked_at(folder):
    run = run_list.look(folder)
    return run.state, run.note


def test_a_finished_run_has_score_date_commit_and_command(tmp_path):
    folder = finetuning(tmp_path / "tuned")
    write_results(folder)
    record = files.read_json(folder / "results.json")
    scores = {"accuracy": 0.5, "uf1": 0.4, "uar": 0.3}
    files.write_json(folder / "results.json", record | scores | {"n": 12})
    files.write_json(
        pretraining(tmp_path / "pre") / "summary.json",
        PRETRAINED
        | record
        | {
            "steps": 70,
            "steps_this_session": 70,
        },
    )
    tuned, pre = run_list.below(tmp_path)  # the earliest first
    assert (tuned.folder, tuned.state, tuned.scores, tuned.n) == (folder, "finished", scores, 12)
    assert (tuned.made, tuned.commit) == ("2026-11-28T10:00:00", "ec77d1c")
    assert tuned.command.startswith("python experiments/finetune.py --target=synthetic")
    assert (pre.state, pre.scores, pre.n) == ("finished", {"copy_share": pytest.approx(0.75)}, 32)
    assert pre.made > tuned.made, "of the file, where it was not kept"
    assert run_list.below(folder) == [tuned]


def test_a_run_that_was_killed_says_how_far_it_came(tmp_path):
    assert looked_at(pretraining(tmp_path / "a")) == ("stopped", "nothing saved yet")
    assert looked_at(pretraining(tmp_path / "b", (50, 60))) == ("stopped", "at step 60 of 70")
    folder = finetuning(tmp_path / "c")
    assert looked_at(folder) == ("stopped", "nothing saved yet")
    (folder / "checkpoints/unfinished-1/5").mkdir(parents=True)
    (folder / "checkpoints/0").mkdir()
    told = "2 of 6 folds done, the next at epoch 5 of 9"
    assert looked_at(folder) == ("stopped", told)
    with lock.alone(folder, "run"):
        assert looked_at(folder) == ("running", told)


def test_a_run_on_all_subjects_says_why_it_has_no_score(tmp_path):
    folder = finetuning(tmp_path / "all")
    write_results(folder)
    record = files.read_json(folder / "results.json")
    files.write_json(folder / "results.json", record | {"no_score": "nobody is left", "n": 12})
    run = run_list.look(folder)
    assert (run.state, run.note) == ("finished", "no score: trained on all subjects")


def test_damaged_runs_are_listed_and_what_is_no_run_is_passed_over(tmp_path, capsys):
    whole = finetuning(tmp_path / "deep" / "whole")
    cut = finetuning(tmp_path / "cut", made=3)
    (cut / "checkpoints").mkdir()
    (cut / "config.json").write_bytes(b'{"asked": {"seed"\xff')
    write_results(finetuning(tmp_path / "scored"))
    (tmp_path / "scored" / "results.json").write_text("[1, 2")
    odd = finetuning(tmp_path / "odd", resolved={"seeds": 7})
    newer = finetuning(tmp_path / "newer", format=99)

    for name, content in {"vae": {"block": 3}, "model": {"format": "ma2mi"}, "list": [1]}.items():
        (tmp_path / name).mkdir()
        files.write_json(tmp_path / name / "config.json", content)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text("no JSON")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkdir(os.fsencode(tmp_path) + b"/\xd6")
    (tmp_path / "broken" / "config.json").mkdir(parents=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")

    found = {run.folder: run.state for run in run_list.below(tmp_path)}
    damaged = dict.fromkeys([cut, tmp_path / "scored", odd, newer], "damaged")
    assert found == {whole: "stopped", **damaged}
    assert runs.main([str(tmp_path)]) is None
    said = capsys.readouterr().out
    assert "5 runs below" in said
    assert "1 stopped, 4 damaged" in said
    assert "results.json: cannot be read as JSON" in said


def test_the_table_fits_and_the_command_can_be_copied(tmp_path, capsys):
    folder = finetuning(tmp_path / "tuned", commit="ec77d1c-dirty", command="experiments/f.py " * 9)
    write_results(folder)
    record = files.read_json(folder / "results.json")
    files.write_json(folder / "results.json", record | {"accuracy": 0.5, "uf1": 0.4, "n": 1120})
    runs.main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    row = "  finished: accuracy 0.5000, UF1 0.4000  N 1120  2026-11-28  ec77d1c-dirty"
    assert len(row) <= 80
    assert lines[:3] == [str(folder), row, f"  python {'experiments/f.py ' * 9}".rstrip()]


def test_json_holds_all_of_it(tmp_path, capsys):
    folder = pretraining(tmp_path / "pre", (60,))
    runs.main([str(tmp_path), "--json"])
    (record,) = json.loads(capsys.readouterr().out)
    assert pathlib.Path(record["folder"]) == folder
    assert (record["state"], record["note"]) == ("stopped", "at step 60 of 70")
    assert record["command"].startswith("python experiments/pretrain.py --source=synthetic")
    runs.main([str(tmp_path / "pre" / "checkpoints"), "--json"])
    assert json.loads(capsys.readouterr().out) == []
    with pytest.raises(UserError, match="no such folder; give one that holds runs"):
        runs.main([str(tmp_path / "nowhere")])
