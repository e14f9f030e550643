"""reproduce.py: what is reused, what goes on, what a failure costs, and what the page says; once from end to end."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import predictions as results
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.reproduction import page as pages
from ma2mi_jax.reproduction import plans
from ma2mi_jax.training import finetuning, pretraining

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = plans.Size(source="synthetic", preset="tiny", space="pixel", clips=40)
NAMES = ["happiness", "disgust", "surprise"]
VERSIONS = {"device": "1 x cpu", "python": "3.11", "jax": "0.10", "flax": "0.12"}


@pytest.fixture
def reproduce(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import reproduce

    return reproduce


class Scripts:
    """Stands in for the two scripts: writes what they would write. `broken` folders fail, `killed` ones end everything halfway."""

    def __init__(self, out, broken=(), killed=()):
        self.out, self.broken, self.killed, self.called = out, broken, killed, []

    def __call__(self, words):
        given = plans.split_flags(words[1:])
        run = pathlib.Path(given["run"])
        folder = run.relative_to(self.out).as_posix()
        self.called.append(folder)
        run.mkdir(parents=True, exist_ok=True)
        shape = dataclasses.replace(
            PRESETS["tiny"], space=given.get("space", "pixel"), fusion=given.get("fusion", "mul")
        )
        if words[0] == "pretrain.py":
            config = pretraining.Config(
                shape,
                given.get("objective", "ma2mi"),
                position_loss=given.get("position-loss") != "false",
                seed=int(given["seed"]),
            )
            content = {"data": {}, "pretrain": dataclasses.asdict(config)}
        else:
            config = finetuning.Config(PRESETS["tiny"], classes=3, tune=given.get("tune", "both"))
            init = (
                json.loads((pathlib.Path(given["init"]) / "config.json").read_text())["config"]
                if given["init"] != "none"
                else "none"
            )
            content = {"init": init, "finetune": dataclasses.asdict(config)}
        (run / "config.json").write_text(
            json.dumps(
                {"config": content, "command": " ".join(["experiments/" + words[0], *words[1:]])}
            )
        )
        if folder in self.killed:
            raise KeyboardInterrupt
        if folder in self.broken:
            return 2
        if words[0] == "pretrain.py":
            result = {"seconds": 20.0, "steps": 10, "steps_this_session": 10, "versions": VERSIONS}
            (run / "summary.json").write_text(json.dumps(result))
        else:
            write_run(run, seed=len(folder), hits=0.5)
        return 0


def write_run(folder, *, seed=0, hits=0.6, clips=12, seeds=2, target="synthetic"):
    """A finished fine-tuning run's predictions.csv and results.json; returns the labels and predictions (seeds, clips)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % len(NAMES)
    predicted = np.where(
        rng.random((seeds, clips)) < hits, labels, rng.integers(0, len(NAMES), (seeds, clips))
    )
    probabilities = 0.1 + 0.7 * np.eye(len(NAMES), dtype=np.float32)[predicted]
    rows = [
        Clip(f"clip{i}", frames=(), subject=f"s{i // 4}", label=int(labels[i]))
        for i in range(clips)
    ]
    predictions = results.Predictions(
        rows, [clip.subject for clip in rows], list(range(seeds)), probabilities
    )
    folder.mkdir(parents=True, exist_ok=True)
    results.write_predictions(folder / "predictions.csv", predictions, NAMES)
    record = {
        "classes": NAMES,
        "protocol": "loso",
        "annotations": "",
        "set_aside": [],
        "epoch_reported": "last",
        "target": target,
    }
    (folder / "results.json").write_text(
        json.dumps(record | {"seconds": 30.0, "versions": VERSIONS})
    )
    return labels, predicted


def runs_of_table(number, size=SIZE):
    return plans.runs_of(plans.plan([number], [], ["synthetic"], size))


# ------------------------------------------------------------------------------------------------------------------- running


def test_every_run_is_made_once_and_taken_again(reproduce, tmp_path):
    todo = runs_of_table(4)
    first, second = Scripts(tmp_path), Scripts(tmp_path)
    assert set(reproduce.execute(todo, tmp_path, first).values()) == {""}
    assert first.called == [run.folder for run in todo]
    assert set(reproduce.execute(todo, tmp_path, second).values()) == {""}
    assert second.called == []
    other_table = Scripts(tmp_path)
    reproduce.execute(runs_of_table(1), tmp_path, other_table)
    assert {run.folder for run in runs_of_table(1)} - set(other_table.called) == {
        "pretrain/synthetic-40-pixel-seed0",
        "synthetic/from-synthetic-40-pixel-seed0",
    }


def test_a_killed_plan_goes_on_where_it_stopped(reproduce, tmp_path):
    todo = runs_of_table(4)
    killed = Scripts(tmp_path, killed=(todo[2].folder,))
    with pytest.raises(KeyboardInterrupt):
        reproduce.execute(todo, tmp_path, killed)
    assert [reproduce.look(run, tmp_path).kind for run in todo] == [
        "finished",
        "finished",
        "unfinished",
        "absent",
        "absent",
        "absent",
    ]
    again = Scripts(tmp_path)
    assert set(reproduce.execute(todo, tmp_path, again).values()) == {""}
    assert again.called == [run.folder for run in todo[2:]]


def test_after_each_run_it_says_how_long_the_rest_takes(reproduce, tmp_path, capsys):
    todo = runs_of_table(4)
    reproduce.execute(
        todo, tmp_path, Scripts(tmp_path), estimate=lambda: dict.fromkeys(todo[:-1], 60.0)
    )
    said = [line for line in capsys.readouterr().err.splitlines() if "to make" in line]
    assert len(said) == len(todo) - 1
    assert said[0].startswith("5 runs to make; 4 min for 4 of them")
    assert said[-1] == "1 runs to make; unknown for 1, no run of whose kind is finished"


def test_a_failed_run_stops_only_what_starts_from_it(reproduce, tmp_path):
    todo = runs_of_table(4)
    broken = Scripts(tmp_path, broken=(todo[0].folder,))
    outcome = reproduce.execute(todo, tmp_path, broken)
    assert outcome[todo[0]] == "failed with exit code 2"
    assert outcome[todo[1]] == f"skipped, since {todo[0].folder} is not finished"
    assert [outcome[run] for run in todo[2:]] == [""] * 4
    assert todo[1].folder not in broken.called
    mended = Scripts(tmp_path)
    assert set(reproduce.execute(todo, tmp_path, mended).values()) == {""}
    assert mended.called == [todo[0].folder, todo[1].folder]


def test_a_script_that_ends_well_without_a_result_has_failed(reproduce, tmp_path):
    todo = runs_of_table(4)[:1]
    assert "exit code 0" in reproduce.execute(todo, tmp_path, lambda words: 0)[todo[0]]


def test_a_run_of_another_configuration_is_reported_and_left_alone(reproduce, tmp_path):
    todo = runs_of_table(4)
    reproduce.execute(todo, tmp_path, Scripts(tmp_path))
    longer = runs_of_table(4, dataclasses.replace(SIZE, pretrain={"learning-rate": "1e-3"}))
    other = Scripts(tmp_path)
    outcome = reproduce.execute(longer, tmp_path, other)
    assert other.called == []
    assert "learning_rate is 0.0004 there, 0.001 here" in outcome[longer[0]]
    assert "--out" in outcome[longer[0]]
    assert (tmp_path / longer[0].folder / "summary.json").exists()


def test_a_fine_tune_whose_start_was_made_anew_is_not_taken(reproduce, tmp_path):
    todo = runs_of_table(4)
    reproduce.execute(todo, tmp_path, Scripts(tmp_path))
    file = tmp_path / todo[0].folder / "config.json"
    stored = json.loads(file.read_text())
    stored["config"]["data"] = {"fingerprint": "other clips"}
    file.write_text(json.dumps(stored))
    assert reproduce.look(todo[0], tmp_path).kind == "finished"
    assert "another pre-training" in reproduce.look(todo[1], tmp_path).why
    file.unlink()
    assert "config.json" in reproduce.look(todo[0], tmp_path).why
    assert "is gone" in reproduce.look(todo[1], tmp_path).why


def test_the_plan_says_what_is_there_and_how_long_the_rest_takes(reproduce, tmp_path, capsys):
    size = ["--target=synthetic", "--table=4", "--clips=40", f"--out={tmp_path}", "--dry-run"]
    assert reproduce.main(size) == 0
    text = capsys.readouterr().out
    assert "6 runs, 6 to make; unknown for 6" in text
    assert "--fusion=action" in text
    todo = runs_of_table(4)
    reproduce.execute(todo[:4], tmp_path, Scripts(tmp_path))
    assert reproduce.main(size) == 0
    text = capsys.readouterr().out
    assert "6 runs, 2 to make; 50 s for 2 of them" in text  # 10 steps of 2 s, and 30 s
    said = {
        line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line.strip()
    }
    assert [said[run.folder] for run in todo] == ["there already"] * 4 + [
        "to do 20 s",
        "to do 30 s",
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--target=synthetic", ["--table", "--all"]),
        ("--target=synthetic --table=7", ["--table", "7"]),
        ("--target=synthetic --figure=1", ["--figure"]),
        ("--target=synthetic,samm --all", ["stands alone"]),
        ("--target=smic --all", ["casme2"]),
        ("--target=synthetic --all --pretrain-flags=--seed=3", ["--pretrain-flags", "--seed"]),
        (
            "--target=synthetic --all --finetune-flags=epochs=3",
            ["--finetune-flags", "--name=value"],
        ),
        (
            "--target=synthetic --all --finetune-flags=--learnin-rate=1",
            ["finetune.py", "--learnin-rate"],
        ),
        (
            "--target=synthetic --all --pretrain-flags=--batch-size=3",
            ["pretrain.py", "--batch-size=3", "even"],
        ),
        ("--target=synthetic --all --pretrain-flags=--help", ["--help"]),
        ("--target=synthetic --all --pretrain-flags='", ["--pretrain-flags", "quotation"]),
        (
            "--target=synthetic --all --finetune-flags=--fusion=add",
            ["--fusion", "--pretrain-flags"],
        ),
        (
            "--target=casme2,samm --all --finetune-flags=--annotations=a.xlsx",
            ["casme2, samm", "sheet"],
        ),
        (
            "--target=casme2 --figure=5 --finetune-flags=--learnin-rate=1",
            ["finetune.py", "--learnin-rate"],
        ),
        ("--target=casme2 --table=1 --vae=random", ["--vae=random"]),
        ("--target=synthetic --all --data=/datasets", ["--data=/datasets"]),
        ("--target=casme2 --all --subjects=3", ["--subjects", "--target=synthetic"]),
        ("--target=casme2 --all --clips=3", ["--clips=3", "--source=dfew"]),
        ("--target=synthetic --all --steps=3 --epochs=3", ["not allowed"]),
    ],
)
def test_bad_flags_end_in_one_clear_line(reproduce, monkeypatch, capsys, flags, words):
    import cli

    monkeypatch.setattr(sys, "argv", ["reproduce", *flags.split(), "--dry-run"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(reproduce.main)
    assert stopped.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in message for word in ["error: ", *words]), message


def test_a_dataset_that_is_not_there_is_missed_before_the_first_run(reproduce, tmp_path):
    flags = ["--target=casme2", "--table=4", f"--data={tmp_path}", f"--out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match=r"dfew: no such folder.*--data"):
        reproduce.main(flags)
    (tmp_path / "dfew").mkdir()
    with pytest.raises(UserError, match=r"casme2: no such folder"):
        reproduce.main(flags)
    assert reproduce.main([*flags, "--dry-run"]) == 0  # a plan can be looked at elsewhere


def test_figure_4_has_the_ranges_that_are_there(reproduce, tmp_path):
    (part,) = plans.plan([], [4], ["synthetic"], plans.Size())
    write_run(tmp_path / "run")
    found = {row.key: "it failed" for row in part.rows}
    assert reproduce.draw_figure4(tmp_path / "a.png", part, "synthetic", found) is None
    found["3:8"] = pages.read_scores([tmp_path / "run"])
    assert "Drawn faces" in reproduce.draw_figure4(tmp_path / "a.png", part, "synthetic", found)
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_sizes_of_drawn_faces_and_of_the_paper(reproduce):
    drawn = reproduce.size_of(
        reproduce.flags(
            ["--target=synthetic", "--all", "--steps=9", "--subjects=3", "--finetune-epochs=2"]
        )
    )
    assert (drawn.source, drawn.preset, drawn.space) == ("synthetic", "tiny", "pixel")
    assert (drawn.pretrain, drawn.finetune) == ({"steps": "9"}, {"epochs": "2", "subjects": "3"})
    f = reproduce.flags(
        [
            "--target=mmew,casme2",
            "--table=3,1",
            "--source=fervk39",
            "--pretrain-flags=--batch-size=64 --fusion=add",
        ]
    )
    assert (f.table, f.target, f.figure) == ([1, 3], ["casme2", "mmew"], [])
    real = reproduce.size_of(f)
    assert (real.source, real.preset, real.space, real.pretrain) == (
        "ferv39k",
        "paper",
        "latent",
        {"batch-size": "64", "fusion": "add"},
    )


# ------------------------------------------------------------------------------------------------------------------- the page


def test_several_runs_of_a_row_are_pooled_as_seeds(tmp_path):
    (labels, a), (_, b) = (
        write_run(tmp_path / name, seed=n, hits=h) for name, n, h in (("a", 1, 0.9), ("b", 2, 0.4))
    )
    found = pages.read_scores([tmp_path / "a", tmp_path / "b"])
    each = 100 * (np.concatenate([a, b]) == labels).mean(1)
    assert found.summary["seeds"]["accuracy"]["values"] * 100 == pytest.approx(each)
    assert found.predictions.seeds == [0, 1, 0, 1]
    compared = pages.difference(
        pages.read_scores([tmp_path / "a"]), pages.read_scores([tmp_path / "b"])
    )
    assert 100 * compared["accuracy"]["difference"] == pytest.approx(
        each[:2].mean() - each[2:].mean()
    )


def test_the_written_class_is_taken_where_rounding_makes_two_equal(tmp_path):
    write_run(tmp_path)
    file = tmp_path / "predictions.csv"
    lines = file.read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:5], "surprise", "0.333333", "0.333333", "0.333333"])
    file.write_text("\n".join(lines) + "\n")
    assert pages.read_scores([tmp_path]).predictions.classes[0, 0] == NAMES.index("surprise")


def test_runs_over_other_clips_are_not_mixed(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", clips=9)
    with pytest.raises(UserError, match="other clips"):
        pages.read_scores([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UserError, match="different clips"):
        pages.difference(pages.read_scores([tmp_path / "a"]), pages.read_scores([tmp_path / "b"]))


def cells(block):
    """Row name -> column -> texts, for columns may share a name."""
    return {
        row[0]: {
            c: [v for k, v in zip(block.columns, row, strict=True) if k == c] for c in block.columns
        }
        for row in block.rows
    }


def test_a_table_has_the_papers_number_and_ours_side_by_side(tmp_path):
    (part,) = plans.plan([1], [], ["casme2"], plans.Size())
    labels, none = write_run(tmp_path / "none", seed=1, hits=0.3, target="casme2")
    _, latent = write_run(tmp_path / "latent", seed=2, hits=0.9, target="casme2")
    found = {
        "none": pages.read_scores([tmp_path / "none"]),
        "latent": pages.read_scores([tmp_path / "latent"]),
    }
    blocks = pages.score_blocks(
        part, "casme2", found | {"maer": "it failed", "pixel": "it failed too"}
    )
    table = cells(blocks[0])
    ours = 100 * (latent == labels).mean(1)
    last = table["MA2MI"]
    assert (last["paper Acc %"], last["paper UF1"], last["N"]) == (
        ["89.16"],
        ["0.8882"],
        ["12 (paper 249)"],
    )
    assert last["ours Acc %"] == [f"{ours.mean():.2f} ± {ours.std(ddof=1):.2f}"]
    assert last["ours − paper"][0] == f"{ours.mean() - 89.16:+.2f}"
    assert (table["MAER"]["paper Acc %"], table["MAER"]["ours Acc %"]) == (["83.53"], ["missing"])
    assert [b.text for b in blocks if isinstance(b, pages.Text)] == [
        "MAER: it failed.",
        "MA2MI† (pixels): it failed too.",
    ]
    against = cells(blocks[-1])
    gain = ours.mean() - 100 * (none == labels).mean()
    assert list(against) == ["MA2MI"]
    assert against["MA2MI"]["Acc, points"] == [f"{gain:+.2f}"]
    assert "2 seed(s)" in blocks[0].caption


def test_on_drawn_faces_there_is_no_difference_to_the_paper(tmp_path):
    (part,) = plans.plan([3], [], ["synthetic"], SIZE)
    for row in part.rows:
        write_run(tmp_path / row.key)
    blocks = pages.score_blocks(
        part, "synthetic", {row.key: pages.read_scores([tmp_path / row.key]) for row in part.rows}
    )
    table = cells(blocks[0])
    assert not any("−" in column for column in blocks[0].columns)
    assert table["none"]["paper, CASME II"] == ["83.94 / 0.8073"]
    assert table["40 drawn clips"]["paper, CASME II"] == ["–"]
    assert "no real dataset" in blocks[0].caption


def test_tables_5_and_6_begin_with_the_published_rows(tmp_path):
    write_run(tmp_path, target="mmew")
    (part,) = plans.plan([6], [], ["mmew"], plans.Size())
    table = cells(pages.score_blocks(part, "mmew", {"ours": pages.read_scores([tmp_path])})[0])
    assert list(table) == [
        "LBP-TOP",
        "KGSL",
        "MDMO",
        "TLCNN",
        "Sparse Transformer",
        "LD-FMERN",
        "MA2MI, this code",
    ]
    assert (table["TLCNN"]["paper Acc %"], table["MA2MI, this code"]["paper Acc %"]) == (
        ["69.40"],
        ["75.21"],
    )
    (part,) = plans.plan([5], [], ["synthetic"], SIZE)
    drawn = cells(pages.score_blocks(part, "synthetic", {"ours": pages.read_scores([tmp_path])})[0])
    assert list(drawn)[::8] == ["DSSN", "MMNet"]
    assert [drawn["TSCNN"][f"paper, {name}"] for name in ("CASME II", "SAMM", "MMEW")] == [
        ["80.97 / 0.8070"],
        ["–"],
        ["–"],
    ]
    assert drawn["MA2MI, this code"]["N"] == ["12"]


def test_rows_over_other_clips_stand_in_the_table_and_are_not_compared(tmp_path):
    """A dataset that grew between two runs of a plan costs no page."""
    (part,) = plans.plan([4], [], ["synthetic"], SIZE)
    for row, clips in zip(part.rows, (12, 9, 12), strict=True):
        write_run(tmp_path / row.key, clips=clips)
    blocks = pages.score_blocks(
        part, "synthetic", {row.key: pages.read_scores([tmp_path / row.key]) for row in part.rows}
    )
    assert [cells(blocks[0])[row.label]["N"] for row in part.rows] == [["12"], ["9"], ["12"]]
    [said] = [block.text for block in blocks if isinstance(block, pages.Text)]
    assert "other clips: FPE, without L_pos." in said
    assert list(cells(blocks[-1])) == ["FPE, with L_pos"]


def test_markdown_and_html_say_the_same(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    blocks = [
        pages.Heading("A <b>", 1),
        pages.Table(["", "x"], [["a|b", "1"], ["<c>", "2"]], "caption"),
        pages.Picture(picture, "δ & more"),
        pages.Code(["python a.py --b='c'"]),
    ]
    markdown, html = pages.markdown(blocks, tmp_path), pages.html("title", blocks)
    assert "# A <b>\n" in markdown
    assert "| a\\|b | 1 |" in markdown
    assert "![a](a.png)\n\n*δ & more*" in markdown
    assert "```\npython a.py --b='c'\n```" in markdown
    assert "<h1>A &lt;b&gt;</h1>" in html
    assert "<td>&lt;c&gt;</td><td>2</td>" in html
    assert "data:image/png;base64,iVBORw==" in html
    assert not re.search(r'(src|href)="(?!data:)', html)  # it needs no other file


def test_figure_5_shows_each_classs_median_change(reproduce):
    frames = np.zeros((7, 2, 4, 4, 3), np.uint8)
    for i, change in enumerate([9, 1, 5, 2, 40, 30, 20]):
        frames[i, 0], frames[i, 1] = 100, 100 - change
    assert reproduce.median_pairs(frames, np.array([0, 0, 0, 0, 1, 1, 1])) == [3, 5]


# ------------------------------------------------------------------------------------------------------------------- end to end


@pytest.mark.timeout(600)
def test_table_4_of_drawn_faces(reproduce, tmp_path, capsys):
    variables = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    variables |= {"MA2MI_CACHE": str(tmp_path / "cache"), "MA2MI_DATA": "", "HF_HUB_OFFLINE": "1"}
    out = tmp_path / "out"
    flags = [
        "--target=synthetic",
        "--table=4",
        "--clips=12",
        "--steps=2",
        "--subjects=2",
        "--clips-per-subject=5",
        "--finetune-epochs=1",
    ]
    flags += [
        f"--out={out}",
        "--pretrain-flags=--batch-size=4 --log-every=1",
        "--finetune-flags=--batch-size=4 --fold-chunk=1",
    ]
    words = [sys.executable, "experiments/reproduce.py", *flags, "--figure=5,6"]
    done = subprocess.run(
        words, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("python experiments/pretrain.py") == 3
    page = (out / "table-4-figure-5-figure-6-synthetic.md").read_text()
    table, _, _ = page.partition("against")
    rows = {
        line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")
    }
    for label, published, folder in (
        ("no FPE", "84.74 / 0.8372", "synthetic-12-pixel-action-only"),
        ("FPE, without L_pos", "88.76 / 0.8795", "synthetic-12-pixel-no-lpos"),
        ("FPE, with L_pos", "89.16 / 0.8882", "synthetic-12-pixel"),
    ):
        found = json.loads((out / f"synthetic/from-{folder}-seed0/results.json").read_text())
        assert found["n"] == 10
        assert published in rows[label]
        assert f"| {100 * found['accuracy']:.2f} |" in rows[label]
        assert f"| {found['uf1']:.4f} |" in rows[label]
    assert "stand in for no real dataset" in page
    assert page.count("python experiments/finetune.py --target=synthetic") == 3
    html = (out / "table-4-figure-5-figure-6-synthetic.html").read_text()
    assert "No picture" not in html
    assert html.count("data:image/png;base64,") == 2

    assert (
        reproduce.main([*flags, "--dry-run"]) == 0
    )  # what the scripts wrote is what the plan asks
    assert "6 runs, 0 to make" in capsys.readouterr().out
