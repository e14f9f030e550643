"""The runs behind each table and figure: rows, what they share, and how long a plan takes."""

import dataclasses

import flags
import pytest

from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.reproduction import paper, plans, progress
from ma2mi_jax.reproduction.plans import Size
from ma2mi_jax.training import initial
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

REAL = ("casme2", "samm", "mmew")
SIZE = Size(PretrainRun(DatasetSpec("dfew", "source")), FinetuneRun(DatasetSpec(REAL[0], "target")))
DRAWN = Size(
    PretrainRun(DatasetSpec("synthetic", "source", clips=40), preset="tiny", space="pixel"),
    FinetuneRun(DatasetSpec("synthetic", "target")),
)
SIZES = [(SIZE, REAL), (DRAWN, ("synthetic",))]


def sized(size=SIZE, pretrain=None, finetune=None, **changes):
    """`size` with other fields; `pretrain` and `finetune` are changes of its two runs."""
    runs = {
        "pretrain": dataclasses.replace(size.pretrain, **pretrain or {}),
        "finetune": dataclasses.replace(size.finetune, **finetune or {}),
    }
    return dataclasses.replace(size, **runs, **changes)


def from_source(name):
    return sized(pretrain={"dataset": DatasetSpec(name, "source")})


def everything(size=SIZE, targets=REAL):
    return plans.plan(plans.TABLES, plans.FIGURES, targets, size)


def row(part, key):
    return next(r for r in part.rows if r.key == key)


def runs_of(part, key, target="casme2"):
    """(pre-training or None, fine-tuning) of a row with one run."""
    (planned,) = row(part, key).runs[target]
    return planned.init and planned.init.run, planned.run


# ----- the paper ----------------------------------------------------------------------------------


def test_the_papers_accuracies_are_whole_numbers_of_clips():
    """A mistyped digit would hardly be one: the paper's percentages are k/N."""
    tables = [rows for table in paper.ABLATIONS.values() for rows in table.values()]
    printed = [(dataset, scores[dataset][0]) for scores in tables for dataset in scores]
    for dataset, accuracy in printed:
        if accuracy is not None:
            n = paper.N[dataset]
            nearest = 100 * round(accuracy * n / 100) / n
            # One is cut off, not rounded.
            assert abs(nearest - accuracy) < 0.0101, (dataset, accuracy)
    unreadable = 5  # in our copy
    assert sum(accuracy is not None for _, accuracy in printed) == len(printed) - unreadable


def test_every_row_of_tables_1_to_4_has_its_row_of_the_paper():
    for table, rows in paper.ABLATIONS.items():
        (part,) = plans.plan([table], [], REAL, SIZE)
        assert [r.key for r in part.rows] == list(rows)
        assert part.baseline in rows


def test_the_last_rows_are_the_papers_method():
    best = (89.16, 0.8882)
    assert [list(rows.values())[-1]["casme2"] for rows in paper.ABLATIONS.values()] == [best] * 4
    assert paper.OTHERS["casme2"]["MA2MI"] == best


# ----- rows and their runs ------------------------------------------------------------------------


def test_table_1_none_maer_pixels_latent():
    part = plans.table1(REAL, SIZE)
    before, after = runs_of(part, "none")
    assert before is None
    assert after == FinetuneRun(DatasetSpec("casme2", "target"), preset="paper", seeds=1)
    assert runs_of(part, "maer")[0].objective == "maer"
    assert runs_of(part, "maer")[0].space == "pixel"  # so that no autoencoder is loaded
    assert runs_of(part, "pixel")[0].space == "pixel"
    assert runs_of(part, "latent")[0] == PretrainRun(
        DatasetSpec("dfew", "source"),
        preset="paper",
        space="latent",
        vae="stabilityai/sd-vae-ft-mse",
        seed=0,
    )


def test_in_pixel_space_alone_the_latent_row_is_said_to_be_missing():
    part = plans.table1(REAL, sized(pretrain={"space": "pixel"}))
    assert row(part, "latent").runs == {}
    assert "space `latent`" in row(part, "latent").missing
    assert row(plans.table1(REAL, from_source("folder")), "maer").missing


def test_table_2_encoders_and_reconstruction():
    part = plans.table2(REAL, sized(pretrain={"vae": "mine"}))
    found = {r.key: runs_of(part, r.key)[1] for r in part.rows}
    assert {key: (run.tune, run.keep_reconstruction) for key, run in found.items()} == {
        f"{kept}-{tune}": (tune, kept == "kept")
        for kept in ("kept", "dropped")
        for tune in ("position", "action", "both")
    }
    assert found["kept-both"].vae == "mine"  # L_rec is of latents
    assert found["dropped-both"].vae == FinetuneRun.vae
    assert len({r.runs["samm"][0].init for r in part.rows}) == 1


def test_table_3_sources():
    part = plans.table3(REAL, sized(roots="/data"))
    names = ["afew", "ferv39k", "dfew"]
    assert [runs_of(part, name)[0].dataset.name for name in names] == names
    assert [run.dataset.root for run in runs_of(part, "afew")] == ["/data/afew", "/data/casme2"]


def test_another_source_has_no_part_of_the_plans_own():
    """A split is one of its dataset; how faces are found holds for all."""
    spec = DatasetSpec("dfew", "source", split="train", detector="yunet", detector_model="/y.onnx")
    part = plans.table3(REAL, sized(pretrain={"dataset": spec}))
    assert runs_of(part, "dfew")[0].dataset == spec
    afew = runs_of(part, "afew")[0].dataset
    assert (afew.split, afew.detector, afew.detector_model) == (None, "yunet", "/y.onnx")


def test_table_3_of_drawn_faces_names_no_dataset():
    part = plans.table3(["synthetic"], DRAWN)
    assert [r.key for r in part.rows] == ["none", "synthetic-10", "synthetic-20", "synthetic-40"]
    pretrained = [runs_of(part, r.key, "synthetic")[0] for r in part.rows[1:]]
    assert [run.dataset.clips for run in pretrained] == [10, 20, 40]
    assert part.notes
    assert all(plans.paper_score(part, r, "casme2") == (None, None) for r in part.rows[1:])


def test_table_4_position_encoder():
    part = plans.table4(REAL, SIZE)
    assert runs_of(part, "no-position")[0].fusion == "action"
    assert not runs_of(part, "no-lpos")[0].position_loss
    ours = runs_of(part, "with-lpos")[0]
    assert (ours.fusion, ours.position_loss) == ("mul", True)


def test_tables_5_and_6_are_of_their_datasets_alone():
    assert set(plans.table5(REAL, SIZE).rows[0].runs) == {"casme2", "samm"}
    assert set(plans.table6(REAL, SIZE).rows[0].runs) == {"mmew"}
    assert plans.table6(["casme2"], SIZE).rows == ()
    assert plans.table6(["casme2"], SIZE).notes
    assert set(plans.table5(["synthetic"], DRAWN).rows[0].runs) == {"synthetic"}


def test_figure_4_ranges():
    part = plans.figure4(REAL, SIZE)
    for each in part.rows:
        assert "{}:{}".format(*runs_of(part, each.key)[0].delta) == each.key
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
        ("table", 5, "ours"),
        ("figure", 4, "3:8"),
        ("figure", 6, "ours"),
    ]
    runs = {row(parts[kind, number], key).runs["casme2"] for kind, number, key in shared}
    assert len(runs) == 1
    assert parts["figure", 5].rows[0].runs["casme2"][0] == runs.pop()[0].init


IN_TIME = sized(pretrain={"delta_ms": (120, 320)}, wrong_labels=0.2)


@pytest.mark.parametrize(
    ("size", "targets"), [*SIZES, (sized(pretrain_seeds=3), REAL), (IN_TIME, REAL)]
)
def test_one_folder_a_run_and_each_after_its_start(size, targets):
    runs = plans.runs_of(everything(size, targets))
    assert len({planned.folder for planned in runs}) == len(runs)
    assert len({(planned.run, planned.init) for planned in runs}) == len(runs)
    for i, planned in enumerate(runs):
        assert planned.init is None or planned.init in runs[:i]


def test_pretraining_seeds_multiply_all_rows_but_the_one_from_scratch():
    part = plans.table1(REAL, sized(finetune={"seeds": 2}, pretrain_seeds=3))
    assert [len(r.runs["samm"]) for r in part.rows] == [1, 3, 3, 3]
    assert [planned.init.run.seed for planned in row(part, "latent").runs["samm"]] == [0, 1, 2]
    assert {planned.run.seeds for r in part.rows for planned in r.runs["samm"]} == {2}


def test_what_makes_a_row_wins_over_what_all_runs_have_in_common():
    size = sized(pretrain={"fusion": "add", "batch_size": 8}, finetune={"epochs": 3})
    part = plans.table4(REAL, size)
    assert runs_of(part, "no-position")[0].fusion == "action"
    before, after = runs_of(part, "with-lpos")
    assert (before.fusion, before.batch_size, after.epochs) == ("add", 8, 3)


@pytest.mark.parametrize("table", [plans.table1, plans.table3])
def test_the_row_without_pretraining_has_the_same_networks(table):
    chosen = {"fusion": "add", "pooling": "flatten", "normalisation": "imagenet", "preset": "tiny"}
    scratch = runs_of(table(REAL, sized(pretrain=chosen)), "none")[1]
    ours = initial.from_scratch(scratch)
    theirs = sized(pretrain=chosen).pretrain.architecture
    assert ours == dataclasses.replace(theirs, space=ours.space)
    usual = runs_of(table(REAL, SIZE), "none")[1]
    assert (usual.fusion, usual.pooling, usual.normalisation) == (None, None, None)


def test_an_autoencoder_that_is_not_used_tells_no_runs_apart():
    """Plans with another autoencoder share what is pre-trained without one."""
    ours, other = (plans.table1(REAL, sized(pretrain={"vae": name})) for name in ("a", "b"))
    for key in ("none", "maer", "pixel"):
        assert runs_of(ours, key) == runs_of(other, key)
    assert runs_of(ours, "latent") != runs_of(other, "latent")


def test_a_delta_in_milliseconds_is_of_the_rows_that_name_no_other_one():
    table, figure = plans.table1(REAL, IN_TIME), plans.figure4(REAL, IN_TIME)
    assert runs_of(table, "latent")[0].delta_ms == (120, 320)
    assert runs_of(table, "maer")[0].delta_ms is None
    for each in figure.rows:  # in frames, as the paper has them
        run = runs_of(figure, each.key)[0]
        assert (run.delta_ms, "{}:{}".format(*run.delta)) == (None, each.key)


def test_wrong_labels_are_of_the_row_that_sees_labels():
    part = plans.table1(REAL, IN_TIME)
    shares = {key: runs_of(part, key)[0].wrong_labels for key in ("maer", "pixel", "latent")}
    assert shares == {"maer": 0.2, "pixel": None, "latent": None}


@pytest.mark.parametrize(("size", "targets"), [*SIZES, (IN_TIME, REAL)])
def test_the_scripts_take_the_flags_of_every_run(size, targets, tmp_path):
    for planned in plans.runs_of(everything(size, targets)):
        run = planned.placed(tmp_path)
        assert run.folder == tmp_path / planned.folder
        read = flags.parse(type(run), flags.of(run))
        assert dataclasses.asdict(read) == dataclasses.asdict(run)


def test_a_fine_tuning_lies_beside_the_pretraining_that_it_starts_from(tmp_path):
    planned = plans.finetuning(SIZE, "samm", plans.pretraining(SIZE, 0))
    assert planned.placed(tmp_path).init == str(tmp_path / "pretrain/dfew-latent-seed0")
    assert plans.finetuning(SIZE, "samm", None).placed(tmp_path).init == "none"


def test_what_makes_no_sense_for_a_target_is_said_when_the_plan_is_made():
    across = sized(finetune={"protocol": "cross", "test_target": "samm"})
    with pytest.raises(UserError, match="test_target=samm: expected another dataset"):
        plans.table1(REAL, across)


# ----- time ---------------------------------------------------------------------------------------


def test_time_at_the_rate_of_finished_runs():
    size = sized(DRAWN, pretrain={"steps": 1000})
    one, longer = (plans.pretraining(size, seed) for seed in (0, 1))
    maer = plans.pretraining(size, 0, objective="maer")
    assert progress.seconds(one, {}) is None
    resumed_halfway = {"seconds": 50.0, "steps_this_session": 500, "steps": 1000}
    finished = {one: resumed_halfway}
    assert progress.seconds(longer, finished) == pytest.approx(100)
    assert progress.seconds(maer, finished) is None  # another loss: another rate

    by_epoch = [plans.pretraining(DRAWN, seed) for seed in (0, 1)]
    finished = {by_epoch[0]: {"seconds": 60.0, "steps_this_session": 30, "steps": 30}}
    assert progress.seconds(by_epoch[1], finished) == pytest.approx(60)
    # How many steps an epoch is, the data alone can tell.
    assert progress.seconds(plans.pretraining(DRAWN, 0, clips=20), finished) is None


def test_time_of_a_fine_tune():
    first, second = (plans.finetuning(SIZE, "samm", plans.pretraining(SIZE, n)) for n in (0, 1))
    kept = plans.finetuning(SIZE, "samm", first.init, keep=True)
    finished = {
        first: {"seconds": 9.0},
        first.init: {"seconds": 1.0, "steps_this_session": 1, "steps": 1},
    }
    assert progress.seconds(second, finished) == 9
    assert progress.seconds(kept, finished) is None
    assert progress.seconds(plans.finetuning(SIZE, "mmew", first.init), finished) is None
