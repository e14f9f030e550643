"""The runs behind each table and figure: rows, flags, what is shared, what a stored run must be like, and how long a plan takes."""

import dataclasses
import json
import pathlib
import runpy
import shlex

import pytest

from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.reproduction import paper, plans
from ma2mi_jax.training import finetuning, pretraining

ROOT = pathlib.Path(__file__).resolve().parents[2]
REAL = ("casme2", "samm", "mmew")
SIZE = plans.Size()
DRAWN = plans.Size(source="synthetic", preset="tiny", space="pixel", clips=40)


def everything(size=SIZE, targets=REAL):
    return plans.plan(plans.TABLES, plans.FIGURES, targets, size)


def row(part, key):
    return next(r for r in part.rows if r.key == key)


def flags_of(part, key, target="casme2"):
    """(pre-training flags or None, fine-tuning flags) of a row with one run."""
    (run,) = row(part, key).runs[target]
    return run.init and dict(run.init.given), dict(run.given)


# ------------------------------------------------------------------------------------------------------------------- the paper


def test_the_papers_accuracies_are_whole_numbers_of_clips():
    """A mistyped digit would hardly be one: the paper's percentages are k/N."""
    tables = [rows for table in paper.ABLATIONS.values() for rows in table.values()]
    printed = [(dataset, scores[dataset][0]) for scores in tables for dataset in scores]
    for dataset, accuracy in printed:
        if accuracy is not None:
            n = paper.N[dataset]
            nearest = 100 * round(accuracy * n / 100) / n
            assert abs(nearest - accuracy) < 0.0101, (
                dataset,
                accuracy,
            )  # one is cut off, not rounded
    assert (
        sum(a is not None for _, a in printed) == len(printed) - 5
    )  # those that our copy does not show


def test_every_row_of_tables_1_to_4_has_its_row_of_the_paper():
    for table, rows in paper.ABLATIONS.items():
        (part,) = plans.plan([table], [], REAL, SIZE)
        assert [r.key for r in part.rows] == list(rows)
        assert part.baseline in rows


def test_the_last_rows_are_the_papers_method():
    best = (89.16, 0.8882)
    assert [list(rows.values())[-1]["casme2"] for rows in paper.ABLATIONS.values()] == [best] * 4
    assert paper.OTHERS["casme2"]["MA2MI"] == best


# ------------------------------------------------------------------------------------------------------------------- rows and flags


def test_table_1_none_maer_pixels_latent():
    part = plans.table1(REAL, SIZE)
    before, after = flags_of(part, "none")
    assert before is None
    assert after == {"target": "casme2", "preset": "paper", "seeds": "1"}
    assert flags_of(part, "maer")[0]["objective"] == "maer"
    assert "vae" not in flags_of(part, "maer")[0]
    assert flags_of(part, "pixel")[0]["space"] == "pixel"
    assert flags_of(part, "latent")[0] == {
        "source": "dfew", "preset": "paper", "space": "latent", "vae": "stabilityai/sd-vae-ft-mse", "seed": "0"
    }  # fmt: skip


def test_in_pixel_space_alone_the_latent_row_is_said_to_be_missing():
    part = plans.table1(REAL, dataclasses.replace(SIZE, space="pixel"))
    assert row(part, "latent").runs == {}
    assert "--space=latent" in row(part, "latent").missing
    assert row(plans.table1(REAL, dataclasses.replace(SIZE, source="folder")), "maer").missing


def test_table_2_encoders_and_reconstruction():
    part = plans.table2(REAL, SIZE)
    found = {r.key: flags_of(part, r.key)[1] for r in part.rows}
    assert {k: (v.get("tune", "both"), "keep-reconstruction" in v) for k, v in found.items()} == {
        f"{kept}-{tune}": (tune, kept == "kept")
        for kept in ("kept", "dropped")
        for tune in ("position", "action", "both")
    }
    assert found["kept-both"]["vae"] == SIZE.vae  # L_rec is of latents
    assert len({r.runs["samm"][0].init for r in part.rows}) == 1


def test_table_3_sources():
    part = plans.table3(REAL, dataclasses.replace(SIZE, data="/data"))
    assert [flags_of(part, name)[0]["source"] for name in ("afew", "ferv39k", "dfew")] == [
        "afew",
        "ferv39k",
        "dfew",
    ]
    assert flags_of(part, "afew")[0]["data-root"] == "/data/afew"
    assert flags_of(part, "afew")[1]["data-root"] == "/data/casme2"


def test_table_3_of_drawn_faces_names_no_dataset():
    part = plans.table3(["synthetic"], DRAWN)
    assert [r.key for r in part.rows] == ["none", "synthetic-10", "synthetic-20", "synthetic-40"]
    assert [flags_of(part, r.key, "synthetic")[0]["clips"] for r in part.rows[1:]] == [
        "10",
        "20",
        "40",
    ]
    assert part.notes
    assert all(plans.paper_score(part, r, "casme2") == (None, None) for r in part.rows[1:])


def test_table_4_position_encoder():
    part = plans.table4(REAL, SIZE)
    assert flags_of(part, "no-position")[0]["fusion"] == "action"
    assert flags_of(part, "no-lpos")[0]["position-loss"] == "false"
    assert not {"fusion", "position-loss"} & flags_of(part, "with-lpos")[0].keys()


def test_tables_5_and_6_are_of_their_datasets_alone():
    assert set(plans.table5(REAL, SIZE).rows[0].runs) == {"casme2", "samm"}
    assert set(plans.table6(REAL, SIZE).rows[0].runs) == {"mmew"}
    assert plans.table6(["casme2"], SIZE).rows == ()
    assert plans.table6(["casme2"], SIZE).notes
    assert set(plans.table5(["synthetic"], DRAWN).rows[0].runs) == {"synthetic"}


def test_figure_4_ranges():
    part = plans.figure4(REAL, SIZE)
    assert [flags_of(part, r.key)[0].get("delta", "3:8") for r in part.rows] == [
        r.key for r in part.rows
    ]
    assert part.baseline == "3:8"
    scores = {r.key: plans.paper_score(part, r, "samm") for r in part.rows}
    assert scores.pop("3:8") == (83.82, 0.7893), "the paper's own row"
    assert set(scores.values()) == {(None, None)}
    assert {"1:1", "3:8", "15:20"} <= {r.key for r in part.rows}


def test_tables_share_runs():
    parts = {(p.kind, p.number): p for p in everything()}
    shared = [
        ("table", 1, "latent"),
        ("table", 2, "dropped-both"),
        ("table", 3, "dfew"),
        ("table", 4, "with-lpos"),
    ]
    shared += [("table", 5, "ours"), ("figure", 4, "3:8"), ("figure", 6, "ours")]
    runs = {row(parts[kind, number], key).runs["casme2"] for kind, number, key in shared}
    assert len(runs) == 1
    assert parts["figure", 5].rows[0].runs["casme2"][0] == runs.pop()[0].init


@pytest.mark.parametrize(
    ("size", "targets"),
    [(SIZE, REAL), (DRAWN, ("synthetic",)), (dataclasses.replace(SIZE, pretrain_seeds=3), REAL)],
)
def test_one_folder_a_run_and_each_after_its_start(size, targets):
    runs = plans.runs_of(everything(size, targets))
    assert len({run.folder for run in runs}) == len(runs)
    assert len({(run.flags, run.init) for run in runs}) == len(runs)
    for i, run in enumerate(runs):
        assert run.init is None or run.init in runs[:i]


def test_pretraining_seeds_multiply_all_rows_but_the_one_from_scratch():
    part = plans.table1(REAL, dataclasses.replace(SIZE, pretrain_seeds=3, seeds=2))
    assert [len(r.runs["samm"]) for r in part.rows] == [1, 3, 3, 3]
    assert [run.init.given["seed"] for run in row(part, "latent").runs["samm"]] == ["0", "1", "2"]
    assert {run.given["seeds"] for r in part.rows for run in r.runs["samm"]} == {"2"}


def test_what_makes_a_row_wins_over_flags_that_are_passed_on():
    size = dataclasses.replace(
        SIZE, pretrain={"fusion": "add", "batch-size": "8"}, finetune={"epochs": "3"}
    )
    part = plans.table4(REAL, size)
    assert flags_of(part, "no-position")[0]["fusion"] == "action"
    before, after = flags_of(part, "with-lpos")
    assert (before["fusion"], before["batch-size"], after["epochs"]) == ("add", "8", "3")
    assert (
        flags_of(plans.table1(REAL, size), "none")[1]["fusion"] == "add"
    )  # the same network without pre-training


def test_flags_go_there_and_back():
    flags = ("--a=b=c", "--d", "--e=")
    assert plans.split_flags(flags) == {"a": "b=c", "d": None, "e": ""}
    assert plans.join_flags(plans.split_flags(flags)) == flags
    assert plans.split_flags(("--a=1", "--a=2")) == {"a": "2"}


@pytest.mark.parametrize(("size", "targets"), [(SIZE, REAL), (DRAWN, ["synthetic"])])
def test_the_scripts_take_the_flags_of_every_run(size, targets, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.chdir(tmp_path)
    read = {
        name: runpy.run_path(str(ROOT / "experiments" / f"{name}.py"))["flags"]
        for name in ("pretrain", "finetune")
    }
    for run in plans.runs_of(everything(size, targets)):
        f = read[run.script]([*run.flags, "--run=somewhere"])
        assert run.given.get("delta", "3:8") == "{}:{}".format(*getattr(f, "delta", (3, 8)))
        assert run.given.get("tune", "both") == getattr(f, "tune", "both")


# ------------------------------------------------------------------------------------------------------------------- what is there


def stored(run, init=None, *, command="", **changes):
    """`config.json` as the script writes it, for a run whose flags are those of the rows alone."""
    given = run.given
    shape = {k: given[k] for k in ("space", "fusion") if k in given}
    if run.script == "pretrain":
        delta = tuple(map(int, given.get("delta", "3:8").split(":")))
        config = pretraining.Config(
            dataclasses.replace(PRESETS[given["preset"]], **shape),
            objective=given.get("objective", "ma2mi"),
            position_loss=given.get("position-loss") != "false",
            delta=delta,
            seed=int(given["seed"]),
            steps=77,
            dtype="bfloat16",
        )
        content = {
            "data": {"source": given["source"]},
            "pretrain": dataclasses.asdict(dataclasses.replace(config, **changes)),
        }
    else:
        preset = PRESETS[given.get("preset", "paper")]
        config = finetuning.Config(
            dataclasses.replace(preset, **shape), classes=5, tune=given.get("tune", "both")
        )
        content = {
            "init": init["config"] if init else "none",
            "finetune": dataclasses.asdict(dataclasses.replace(config, **changes)),
        }
    words = [f"experiments/{run.script}.py", *run.flags, "--run=there", *shlex.split(command)]
    return json.loads(json.dumps({"config": content, "command": shlex.join(words)}))


@pytest.mark.parametrize(("size", "targets"), [(SIZE, REAL), (DRAWN, ["synthetic"])])
def test_a_run_as_the_plan_asks_is_taken(size, targets):
    for run in plans.runs_of(everything(size, targets)):
        init = run.init and stored(run.init)
        assert plans.mismatch(run, stored(run, init), init) == "", run.folder


def test_what_decides_no_number_does_not_matter():
    run = plans.pretraining(SIZE, 0)
    assert (
        plans.mismatch(
            run,
            stored(run, command="--workers=4 --log-every=1 --checkpoint-every=9 --overwrite"),
            None,
        )
        == ""
    )


def test_another_run_is_not_taken():
    run = plans.pretraining(SIZE, 0)
    other = lambda **changes: plans.mismatch(run, stored(run, **changes), None)  # noqa: E731
    assert other(learning_rate=1e-3) == "learning_rate is 0.001 there, 0.0004 here"
    assert other(delta=(1, 4)) == "delta is [1, 4] there, [3, 8] here"
    assert (
        other(architecture=dataclasses.replace(PRESETS["paper"], fusion="add"))
        == "fusion is 'add' there, 'mul' here"
    )
    assert other(architecture=PRESETS["tiny"])
    assert other(command="--steps=9") == "--steps is 9 there, absent here"
    assert other(command="--data-root=elsewhere") == "--data-root is elsewhere there, absent here"
    assert other(command="--vae=mine") == "--vae is mine there, stabilityai/sd-vae-ft-mse here"
    longer = plans.pretraining(
        dataclasses.replace(SIZE, pretrain={"batch-size": "8", "learning-rate": "1e-3"}), 0
    )
    assert plans.mismatch(longer, stored(run), None) == "batch_size is 32 there, 8 here"
    assert plans.mismatch(longer, stored(longer, batch_size=8, learning_rate=0.001), None) == ""
    again = stored(run)
    del again["config"]["pretrain"]["position_scale"]  # made before there was that choice
    assert "position_scale" in plans.mismatch(run, again, None)


def test_a_fine_tune_from_another_start_is_not_taken():
    run = plans.finetuning(SIZE, "samm", plans.pretraining(SIZE, 0))
    init = stored(run.init)
    assert (
        plans.mismatch(run, stored(run, init), stored(run.init, learning_rate=1.0))
        == "it starts from another pre-training"
    )
    assert plans.mismatch(run, stored(run), init) == "it starts from another pre-training"
    kept = stored(run, init, command="--keep-reconstruction")
    assert plans.mismatch(run, kept, init) == "--keep-reconstruction is given there, absent here"
    assert plans.mismatch(run, stored(run, init, epochs=3), init) == "epochs is 3 there, 80 here"
    assert plans.mismatch(run, stored(run.init), init) == "it is no run of finetune.py"


# ------------------------------------------------------------------------------------------------------------------- time


def test_time_at_the_rate_of_finished_runs():
    size = dataclasses.replace(DRAWN, pretrain={"steps": "1000"})
    one, longer, maer = (
        plans.pretraining(s, n, **k)
        for s, n, k in ((size, 0, {}), (size, 1, {}), (size, 0, {"objective": "maer"}))
    )
    assert plans.seconds(one, {}) is None
    finished = {
        one: {"seconds": 50.0, "steps_this_session": 500, "steps": 1000}
    }  # it was resumed halfway
    assert plans.seconds(longer, finished) == pytest.approx(100)
    assert plans.seconds(maer, finished) is None  # another loss: another rate

    by_epoch = [plans.pretraining(DRAWN, n) for n in (0, 1)]
    finished = {by_epoch[0]: {"seconds": 60.0, "steps_this_session": 30, "steps": 30}}
    assert plans.seconds(by_epoch[1], finished) == pytest.approx(60)
    assert (
        plans.seconds(plans.pretraining(DRAWN, 0, clips=20), finished) is None
    )  # how many steps that is, the data alone can tell


def test_time_of_a_fine_tune():
    first, second = (plans.finetuning(SIZE, "samm", plans.pretraining(SIZE, n)) for n in (0, 1))
    kept = plans.finetuning(SIZE, "samm", first.init, keep=True)
    finished = {
        first: {"seconds": 9.0},
        first.init: {"seconds": 1.0, "steps_this_session": 1, "steps": 1},
    }
    assert plans.seconds(second, finished) == 9
    assert plans.seconds(kept, finished) is None
    assert plans.seconds(plans.finetuning(SIZE, "mmew", first.init), finished) is None
