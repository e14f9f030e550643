"""The scripts as people run them: from the repository root, in their own processes, with every bad
flag and file."""

import contextlib
import io
import json
import pathlib
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time

import commands
import cv2
import jax
import miniatures
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = [
    "--preset=smoke",
    "--space=pixel",
    "--clips=12",
    "--batch-size=4",
    "--log-every=1",
    "--checkpoint-every=3",
]
STEPS = 9  # enough that a kill after the first checkpoint comes before the end
SUBJECTS = ["--subjects=3", "--clips-per-subject=5", "--batch-size=8", "--epochs=1"]


@pytest.fixture(scope="module")
def environment():
    return commands.one_device()


@pytest.fixture(scope="module")
def command(environment):
    def run(script, *flags, check=0):
        done = commands.run(script, *flags, environment=environment)
        assert done.returncode == check, done.stderr[-3000:]
        return done

    return run


@pytest.fixture(scope="module")
def pretrained(command, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "pretrained"
    done = command("pretrain", "--source=synthetic", *SMALL, f"--steps={STEPS}", f"--run={run}")
    return run, done


@pytest.fixture(scope="module")
def finetuned(command, pretrained, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "finetuned"
    done = command(
        "finetune",
        "--target=synthetic",
        f"--init={pretrained[0]}",
        *SUBJECTS,
        "--seeds=2",
        "--fold-chunk=2",
        f"--run={run}",
    )
    return run, done


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def parameters(run):
    step = max(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())
    return ocp.StandardCheckpointer().restore(run.absolute() / "checkpoints" / str(step) / "state")


def test_pretrain_writes_what_the_contract_names(pretrained):
    run, done = pretrained
    assert {p.name for p in run.iterdir()} >= {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "reconstructions.png",
        "curves.png",
        "summary.json",
    }
    assert list(run.glob("events.out.tfevents*"))
    keys = {
        "loss",
        "loss_rec",
        "loss_l1",
        "loss_l2",
        "loss_l3",
        "copy_baseline",
        "learning_rate",
        "grad_norm",
        "pairs_per_second",
        "epoch",
    }
    assert [line["step"] for line in lines(run)] == list(range(STEPS))
    assert keys <= set(lines(run)[0])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["clips_used"] == 12
    assert summary["clips_set_aside"] == []
    assert {"final", "seconds", "versions"} <= set(summary)
    assert "loss_rec" in done.stdout
    assert "parameters" in done.stderr


def test_killed_and_resumed_is_never_killed(command, environment, pretrained, tmp_path):
    run = tmp_path / "killed"
    flags = ["--source=synthetic", *SMALL, f"--steps={STEPS}", f"--run={run}"]
    process = subprocess.Popen(
        [sys.executable, "experiments/pretrain.py", *flags],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 250
    while not list(
        run.glob("checkpoints/*/commit_success.txt")
    ):  # saves are asynchronous: killed before the first, a run starts anew
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "summary.json").exists()
    done = command("pretrain", *flags)
    assert "resuming" in done.stderr

    whole = pretrained[0]
    timeless = lambda run: [  # noqa: E731
        {k: v for k, v in line.items() if k != "pairs_per_second"} for line in lines(run)
    ]
    assert timeless(run) == timeless(whole)  # the same losses: so the same batches
    a, b = parameters(run), parameters(whole)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (name, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=str(name))


def test_finetune_writes_what_the_contract_names(finetuned):
    run, done = finetuned
    assert {p.name for p in run.iterdir()} >= {
        "config.json",
        "results.json",
        "predictions.csv",
        "confusion.png",
        "per_subject.png",
        "folds.csv",
        "curves.png",
        "checkpoints",
    }
    results = json.loads((run / "results.json").read_text())
    assert {
        "n",
        "classes",
        "accuracy",
        "uf1",
        "uar",
        "per_class",
        "per_fold",
        "confusion",
        "seeds",
        "oracle",
    } <= set(results)
    assert results["n"] == 15
    assert np.sum(results["confusion"]) == 30  # two seeds
    assert len(results["per_fold"]) == 3
    assert len(results["seeds"]["accuracy"]["values"]) == 2
    rows = (run / "predictions.csv").read_text().splitlines()
    assert rows[0].startswith("clip,subject,fold,seed,label,prediction,p_")
    assert len(rows) == 1 + 30
    assert all(
        row.split(",")[1] == row.split(",")[2] for row in rows[1:]
    )  # under LOSO the fold is the subject
    assert "N = 15" in done.stdout
    assert "oracle" in done.stdout
    assert list(run.glob("events.out.tfevents*"))
    logged = lines(run)  # two members at once, one epoch
    assert [line["step"] for line in logged] == [0, 1, 2]
    assert {"epoch", "loss", "loss_std", "accuracy", "accuracy_std"} <= logged[0].keys()
    assert [[fold["seed"] for fold in line["folds"]] for line in logged] == [[0, 0], [0, 1], [1, 1]]
    for line in logged:
        assert line["loss"] == pytest.approx(np.mean([fold["loss"] for fold in line["folds"]]))


def test_evaluate_agrees_and_notices_a_changed_prediction(command, finetuned):
    run, _ = finetuned
    assert "agrees" in command("evaluate", f"--run={run}").stdout
    file = run / "predictions.csv"
    text = file.read_text()
    row = text.splitlines()[1].split(",")
    other = next(
        c for c in json.loads((run / "results.json").read_text())["classes"] if c != row[5]
    )
    file.write_text(text.replace(",".join(row), ",".join([*row[:5], other, *row[6:]])))
    assert "differ" in command("evaluate", f"--run={run}", check=1).stdout
    file.write_text(text)


def test_probe_writes_beside_the_run_what_it_found(command, pretrained, tmp_path):
    run, _ = pretrained
    data = ["--target=synthetic", *SUBJECTS[:2]]
    done = command("probe", f"--run={run}", *data)
    assert "N = 15" in done.stdout
    assert "random weights" in done.stdout
    found = json.loads((run / "probe.json").read_text())
    assert set(found["networks"]) == {run.name, "random weights"}
    features = {"c_delta", "all_places", "action_mean", "action_all_places"}
    assert all(set(of) == features for of in found["networks"].values())

    flags = [*data, "--preset=smoke", f"--out={tmp_path}"]
    done = command("probe", "--run=none", *flags)
    alone = json.loads((tmp_path / "probe.json").read_text())
    assert alone["networks"]["random weights"] == found["networks"]["random weights"]
    command("probe", f"--run={run}", "--control=false", *flags)
    without = json.loads((tmp_path / "probe.json").read_text())
    assert without["networks"] == {run.name: found["networks"][run.name]}


def test_evaluate_exports_encoders_that_finetune_starts_from(
    command, finetuned, pretrained, tmp_path
):
    written = command("evaluate", f"--run={finetuned[0]}", f"--export={tmp_path}").stdout.split()
    assert len(written) == 2 * 3 * 2  # seeds, folds, encoders
    assert sorted(map(str, tmp_path.iterdir())) == sorted(written)
    command("evaluate", f"--run={pretrained[0]}", f"--export={tmp_path / 'pretrained'}")
    weights = tmp_path / "pretrained" / "pretrained_action_encoder.safetensors"
    flags = [
        "--target=synthetic",
        "--preset=smoke",
        f"--init={weights}",
        *SUBJECTS,
        "--fold-chunk=1",
        f"--run={tmp_path / 'run'}",
        "--keep-checkpoints=false",
    ]
    assert (
        "N = 15"
        in command("finetune", *flags, "--select=inner", "--protocol=kfold", "--folds=3").stdout
    )
    assert json.loads((tmp_path / "run" / "results.json").read_text())["epoch_reported"] == "inner"
    assert not (tmp_path / "run" / "checkpoints").exists()
    for wanted in ([], [f"--export={tmp_path / 'none'}"]):
        refused = command("evaluate", f"--run={tmp_path / 'run'}", *wanted, check=2).stderr
        assert "was not to keep its folds' checkpoints" in refused.strip().splitlines()[-1]
        assert "experiments/finetune.py --target=synthetic" in refused.strip().splitlines()[-1]

    command(
        "pretrain",
        "--source=synthetic",
        *SMALL,
        "--steps=1",
        "--learning-rate=1e-9",
        f"--init={weights}",
        f"--run={tmp_path / 'on'}",
    )
    assert (
        "weights " in json.loads((tmp_path / "on" / "config.json").read_text())["resolved"]["init"]
    )
    command("evaluate", f"--run={tmp_path / 'on'}", f"--export={tmp_path / 'on'}")
    before, after = (
        load_file(weights),
        load_file(tmp_path / "on" / "pretrained_position_encoder.safetensors"),
    )
    np.testing.assert_allclose(after["conv1.weight"], before["conv1.weight"], atol=1e-6)


def test_evaluate_reads_a_dataset_that_has_moved(command, tmp_path):
    before, now, run = tmp_path / "before", tmp_path / "now", tmp_path / "run"
    miniatures.casme2(before, 2014)
    flags = ["--target=casme2", f"--data-root={before}", "--preset=smoke", "--epochs=1"]
    few = ["--protocol=kfold", "--folds=2", "--batch-size=4", "--fold-chunk=1", "--fusion=action"]
    command("finetune", *flags, *few, f"--run={run}")
    before.rename(now)
    refused = command("evaluate", f"--run={run}", check=2).stderr.strip().splitlines()[-1]
    assert f"under {before}" in refused
    assert "give another --data-root" in refused
    assert "agrees" in command("evaluate", f"--run={run}", f"--data-root={now}").stdout


def test_a_run_is_made_again_from_its_config_with_another_seed(command, pretrained, tmp_path):
    run = tmp_path / "again"
    config = pretrained[0] / "config.json"
    command("pretrain", f"--config={config}", "--seed=1", "--steps=2", f"--run={run}")
    there, here = (json.loads((p / "config.json").read_text()) for p in (pretrained[0], run))
    assert (there["asked"]["seed"], here["asked"]["seed"]) == (0, 1)
    assert (there["asked"]["steps"], here["asked"]["steps"]) == (STEPS, 2)
    changed = ("seed", "steps")
    assert without(there["resolved"]["config"], *changed) == without(
        here["resolved"]["config"], *changed
    )
    assert without(there["resolved"], "config") == without(here["resolved"], "config")
    assert lines(run)[0]["loss"] != lines(pretrained[0])[0]["loss"]


def without(record, *names):
    return {name: value for name, value in record.items() if name not in names}


def test_a_run_is_not_overwritten_or_mixed_up(command, pretrained, finetuned, tmp_path):
    run, _ = pretrained
    again = command(
        "pretrain", "--source=synthetic", *SMALL, f"--steps={STEPS}", f"--run={run}", check=2
    )
    assert "finished run" in again.stderr
    assert "--overwrite" in again.stderr
    again = command(
        "finetune",
        "--target=synthetic",
        f"--init={run}",
        *SUBJECTS,
        f"--run={finetuned[0]}",
        check=2,
    )
    told = "another run is finished there (seeds is 2 there, 1 here); give another --run"
    assert told in again.stderr
    assert "--overwrite" not in again.stderr
    other = tmp_path / "other"
    again = command(
        "finetune",
        "--target=synthetic",
        f"--init={run}",
        *SUBJECTS,
        "--data-seed=1",
        f"--compare={finetuned[0]}",
        f"--run={other}",
        check=2,
    )
    assert "has other clips, subjects or labels" in again.stderr
    assert not other.exists()  # it is said before anything is trained


def test_an_unfinished_run_of_another_configuration_is_refused(command, pretrained, tmp_path):
    run = tmp_path / "other"
    run.mkdir()
    (run / "config.json").write_text((pretrained[0] / "config.json").read_text())
    done = command(
        "pretrain",
        "--source=synthetic",
        *SMALL,
        f"--steps={STEPS}",
        "--learning-rate=1e-3",
        f"--run={run}",
        check=2,
    )
    assert "config.learning_rate is 0.0004 there, 0.001 here" in done.stderr


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(command, tmp_path):
    run = tmp_path / "diverged"
    flags = [f for f in SMALL if "checkpoint" not in f]
    done = command(
        "pretrain",
        "--source=synthetic",
        *flags,
        "--checkpoint-every=1",
        "--steps=9",
        "--learning-rate=1e30",
        f"--run={run}",
        check=2,
    )
    message = done.stderr.strip().splitlines()[-1]
    assert "not finite: " in message
    assert "grad_norm" in message
    assert "; in its batch: " in message
    assert "--learning-rate" in message
    bad = int(re.search(r"step (\d+)", message)[1])
    kept = [int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
    assert (
        max(kept) == bad
    )  # the state before the bad step, which was its bad-th update away from the start
    assert not (run / "summary.json").exists()


def main_of(script):
    """The script's `main`, in this process."""
    return runpy.run_path(str(ROOT / "experiments" / f"{script}.py"))["main"]


@pytest.fixture
def bad_places(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no video")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.mp4").write_bytes(b"no video")
    (tmp_path / "vae").mkdir()
    miniatures.dfew(tmp_path / "unlabelled")
    shutil.rmtree(tmp_path / "unlabelled" / "EmoLabel_DataSplit")
    return tmp_path


PIXEL = "--preset=tiny --space=pixel --steps=2"


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        ("pretrain", "--source=folder --data-root={}/missing " + PIXEL, ["missing", "--data-root"]),
        ("pretrain", "--source=folder --data-root={}/empty " + PIXEL, ["empty"]),
        ("pretrain", "--source=folder --data-root={}/texts " + PIXEL, ["texts", "video"]),
        ("pretrain", "--source=folder --data-root={}/broken " + PIXEL, ["broken", "decode"]),
        (
            "pretrain",
            "--source=fervk39 --data-root={}/empty " + PIXEL,
            ["2_ClipsforFaceCrop", "empty", "--data-root"],
        ),
        (
            "pretrain",
            "--source=dfew --data-root={}/missing " + PIXEL,
            ["Clip/clip_224x224", "missing"],
        ),
        ("pretrain", "--source=afew --data-root={}/empty " + PIXEL, ["Train_AFEW"]),
        (
            "pretrain",
            "--source=dfew --clips=9 " + PIXEL,
            ["--clips=9", "--source=synthetic", "remove it"],
        ),
        (
            "finetune",
            "--target=casme2 --clips-per-subject=9",
            ["--clips-per-subject=9", "--target=synthetic", "remove it"],
        ),
        ("pretrain", "--source=nonsense " + PIXEL, ["invalid choice", "nonsense"]),
        ("pretrain", "--source=synthetic --delta=8:3 " + PIXEL, ["--delta", "8:3"]),
        ("pretrain", "--source=synthetic --batch-size=3 " + PIXEL, ["--batch-size", "even"]),
        ("pretrain", "--source=synthetic --position-loss=maybe " + PIXEL, ["true or false"]),
        (
            "pretrain",
            "--source=dfew --data-root={}/unlabelled --objective=maer " + PIXEL,
            ["--objective=maer", "label"],
        ),
        (
            "pretrain",
            "--source=synthetic --wrong-labels=0.3 " + PIXEL,
            ["--wrong-labels", "--objective=maer"],
        ),
        ("pretrain", "--source=synthetic --steps=0", ["--steps", "integer >= 1"]),
        (
            "pretrain",
            "--source=synthetic --preset=tiny --steps=2",
            ["--vae", "--space=pixel", "network"],
        ),
        ("pretrain", "--source=synthetic --preset=tiny --steps=2 --vae={}/vae", ["config.json"]),
        ("pretrain", "--source=synthetic --run={}/texts " + PIXEL, ["texts", "not empty"]),
        ("finetune", "--target=synthetic --annotations=a.xlsx", ["a.xlsx", "--target=synthetic"]),
        ("finetune", "--target=synthetic --data-root={}/empty", ["--data-root", "drawn"]),
        ("finetune", "--target=casme2 --test-root={}/empty", ["--test-root", "--test-target"]),
        ("finetune", "--target=casme2 --folds=3", ["--folds=3", "--protocol=kfold"]),
        (
            "finetune",
            "--target=casme2 --folds-file={}/missing.csv",
            ["--folds-file", "missing.csv"],
        ),
        (
            "pretrain",
            "--source=folder --data-root={}/texts --detector-model=m.onnx " + PIXEL,
            ["--detector-model", "yunet"],
        ),
        (
            "finetune",
            "--target=casme2 --data-root={}/missing --preset=tiny",
            ["missing", "--data-root"],
        ),
        ("finetune", "--target=samm --data-root={}/empty --preset=tiny", ["empty", "--data-root"]),
        ("finetune", "--target=mmew --data-root={}/empty --preset=tiny", ["Micro_Expression"]),
        ("finetune", "--target=synthetic --init={}/missing", ["--init", "no such folder"]),
        ("finetune", "--target=synthetic --init={}/empty", ["config.json"]),
        ("finetune", "--target=synthetic --preset=tiny --fold-chunk=many", ["--fold-chunk"]),
        (
            "finetune",
            "--target=synthetic --preset=tiny --keep-reconstruction",
            ["--keep-reconstruction", "--init"],
        ),
        ("finetune", "--target=casme2 --protocol=cross", ["--test-target"]),
        ("finetune", "--target=casme2 --test-target=casme2", ["--test-target", "another"]),
        ("finetune", "--target=synthetic --preset=tiny --amplitude=3", ["--amplitude"]),
        ("finetune", "--target=synthetic --preset=tiny --compare={}/missing", ["missing"]),
        ("finetune", "--target=synthetic --preset=tiny --compare={}/texts/a.txt", ["a.txt"]),
        (
            "finetune",
            "--target=synthetic --preset=tiny --folds-file={}/texts",
            ["--folds-file", "directory"],
        ),
        ("evaluate", "--run={}/missing", ["missing"]),
        ("evaluate", "--run={}/texts/a.txt", ["a.txt"]),
        ("evaluate", "--run={}/empty", ["empty"]),
        ("probe", "--target=synthetic --run={}/missing", ["--run", "missing", "none"]),
        ("probe", "--target=synthetic --run={}/empty", ["empty"]),
        ("probe", "--target=synthetic --run={}/texts/a.txt", ["--run", "a.txt", "folder"]),
        ("probe", "--target=casme2 --run=none --subjects=9", ["--subjects=9", "--target"]),
        (
            "probe",
            "--target=casme2 --run=none --data-root={}/missing --preset=tiny --out={}/out",
            ["missing", "--data-root"],
        ),
        ("probe", "--target=synthetic --run=none --control=maybe", ["--control", "true or false"]),
        ("probe", "--run=none", ["--target"]),
    ],
)
def test_bad_input_ends_in_one_clear_line(bad_places, monkeypatch, capsys, script, flags, words):
    if "--run" not in flags:
        flags += " --run={}/run"
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.setenv("MA2MI_CACHE", str(bad_places / "cache"))
    monkeypatch.setattr(sys, "argv", [script, *flags.format(*[bad_places] * 2).split()])
    import cli

    with pytest.raises(SystemExit) as stopped:
        cli.run(main_of(script))
    assert stopped.value.code == 2
    *notes, message = capsys.readouterr().err.strip().splitlines()
    assert message.startswith("error: ")
    assert not any("usage" in note for note in notes)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("script", ["pretrain", "finetune", "evaluate"])
def test_help_is_in_plain_words(command, script):
    assert "--run" in command(script, "--help").stdout


def test_every_command_of_the_pages_parses(monkeypatch, tmp_path):
    """A flag that README.md or docs/ names and a script's --help lacks fails here."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.chdir(tmp_path)
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text() for page in pages).replace("\\\n", " ")
    commands = re.findall(r"^\s*(?:\$ )?python experiments/(\w+)\.py ([^\n#]*)", text, re.MULTILINE)
    assert len(commands) >= 4
    known = {}
    for script, flags in commands:
        if script not in known:
            with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as helped:
                main_of(script)(["--help"])  # every one of them reads its flags first
            known[script] = set(re.findall(r"--[a-z-]+", helped.getvalue()))
        named = {word.split("=")[0] for word in shlex.split(flags) if word.startswith("--")}
        assert named <= known[script], f"{script}.py {flags}: no {named - known[script]}"
    for target in re.findall(r"^\s*make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_benchmark_of_motion_tells_light_from_motion(environment):
    from benchmarks import motion

    coarse = np.random.default_rng(0).uniform(-0.8, 0.4, (12, 12)).astype(np.float32)
    face = np.repeat(
        cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)[..., None], 3, axis=-1
    )
    copy, light, less_light, *_ = motion.parts(face, (face + 1) * 1.05 - 1)
    assert light == pytest.approx(0.05, rel=1e-3)
    assert less_light < 0.01 * copy
    copy, _, less_light, less_head, *_ = motion.parts(
        face[8:-8, 8:-8], face[8:-8, 6:-10]
    )  # two pixels to the right
    assert less_light > 0.8 * copy
    assert less_head < 0.15 * copy
    flags = ["--source=synthetic", "--clips=12", "--pairs=1"]
    done = commands.run(ROOT / "benchmarks" / "motion", *flags, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "noise" in done.stdout
    assert "both" in done.stdout  # drawn faces know it exactly
