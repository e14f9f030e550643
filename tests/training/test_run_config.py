"""Run objects: what makes no sense is refused; names and protocols."""

import dataclasses

import jax
import pytest

from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.training import finetuning, pretraining, run_config
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

DFEW = DatasetSpec("dfew", "source")
FOLDER = DatasetSpec("folder", "source", root="/videos")
CASME2 = DatasetSpec("casme2", "target")
SAMM = DatasetSpec("samm", "target")
TWO_PARTS = DatasetSpec("megc2019", "target", without="smic")
DRAWN = DatasetSpec("synthetic", "target", subjects=4, clips_per_subject=5, data_seed=7)
CROSS = {"protocol": "cross", "test_target": "samm"}


# ----- what makes no sense ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "given", "message"),
    [
        (DFEW, {"delta": (0, 3)}, r"delta=\(0, 3\): expected 1 <= first <= last"),
        (DFEW, {"delta": (8, 3)}, "delta="),
        (DFEW, {"delta_ms": (0, 300)}, r"delta_ms=\(0, 300\): expected 1 <= first <= last"),
        (DFEW, {"delta_ms": (120, 320), "delta": (1, 4)}, "delta counts frames .* give one"),
        (DFEW, {"delta_ms": (120, 320), "objective": "maer"}, "delta_ms: objective=maer"),
        (DFEW, {"batch_size": 3}, "batch_size=3: expected an even number"),
        (DFEW, {"learning_rate": 0.0}, "learning_rate=0.0: expected a number > 0"),
        (DFEW, {"learning_rate": float("nan")}, "learning_rate=nan"),
        (DFEW, {"learning_rate": float("inf")}, "learning_rate=inf"),
        (DFEW, {"weight_decay": -1.0}, "weight_decay=-1.0: expected at least 0"),
        (CASME2, {"weight_decay": -1.0}, "weight_decay=-1.0: expected at least 0"),
        (DFEW, {"epochs": 3, "steps": 3}, "epochs and steps both"),
        (FOLDER, {"objective": "maer"}, "source=folder has no labels"),
        (DFEW, {"wrong_labels": 0.5}, "wrong_labels=0.5: objective=ma2mi sees no labels"),
        (CASME2, {"protocol": "lodo"}, "protocol=lodo: leaves one of several datasets out"),
        (CASME2, {"further": (SAMM, CASME2)}, "target=casme2,samm,casme2: names a dataset twice"),
        (CASME2, {"further": (SAMM,), "test_target": "smic"}, "test_target=smic: is for one"),
        (CASME2, {"protocol": "cross"}, "protocol=cross and test_target go together"),
        (CASME2, {"protocol": "loso", "test_target": "samm"}, "go together"),
        (CASME2, {"test_root": "/a"}, "test_root=/a: is only for test_target"),
        (CASME2, {"test_annotations": "a.csv"}, "test_annotations=a.csv: is only for"),
        (CASME2, {"folds": 3}, "folds=3: is only for protocol=kfold"),
        (CASME2, {"folds": 3, "protocol": "kfold", "folds_file": "a.csv"}, "folds=3"),
        (CASME2, {"test_target": "casme2"}, "test_target=casme2: expected another dataset"),
        (CASME2, {**CROSS, "folds_file": "a.csv"}, "folds_file: protocol=cross has a single fold"),
        (CASME2, {"protocol": "all", "select": "inner"}, "select: protocol=all trains on all"),
        (CASME2, {"protocol": "all", "compare": "runs/a"}, "compare: protocol=all trains on all"),
        (CASME2, {"protocol": "all", "folds_file": "a.csv"}, "folds_file: protocol=all trains on"),
        (CASME2, {"protocol": "all", "keep_checkpoints": False}, "keep_checkpoints: protocol=all"),
        (CASME2, {"learning_rate": -1.0}, "learning_rate=-1.0"),
        (CASME2, {"batch_size": 1}, "batch_size=1: expected at least 2"),
    ],
)
def test_what_makes_no_sense_is_refused(dataset, given, message):
    kind = PretrainRun if dataset.kind == "source" else FinetuneRun
    with pytest.raises(UserError, match=message):
        kind(dataset, **given)


def test_what_makes_sense_is_not_refused():
    FinetuneRun(CASME2, folds=3, protocol="kfold")
    FinetuneRun(DatasetSpec("mmew", "target"), folds=3)  # the paper's protocol for it is kfold
    FinetuneRun(CASME2, test_target="samm", test_root="/a", test_annotations="a.csv")
    PretrainRun(DFEW, objective="maer", wrong_labels=0.5)
    PretrainRun(DFEW, wrong_labels=0.0)
    PretrainRun(DFEW, delta=[1, 1], steps=3)


def test_labels_are_as_wrong_as_the_dataset_has_them_unless_a_share_is_given():
    drawn = DatasetSpec("synthetic", "source")
    usual = PretrainRun(drawn, objective="maer")
    assert usual.share_of_wrong_labels == registry.reader("source", "synthetic").wrong_labels > 0
    assert PretrainRun(drawn, objective="maer", wrong_labels=0.0).share_of_wrong_labels == 0
    assert PretrainRun(drawn).share_of_wrong_labels == 0  # no label is read
    assert PretrainRun(DFEW, objective="maer").share_of_wrong_labels == 0
    said = PretrainRun(drawn, objective="maer", wrong_labels=usual.share_of_wrong_labels)
    assert said == usual


def test_auto_is_bfloat16_where_that_is_faster(monkeypatch):
    assert run_config.dtype("auto") == "float32"  # on the CPU of the tests
    assert run_config.dtype("bfloat16") == "bfloat16"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert run_config.dtype("auto") == "bfloat16"
    assert run_config.dtype("float32") == "float32"


# ----- names and protocols ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "config", "own"),
    [
        (PretrainRun, pretraining.Config, {"steps", "vae"}),
        (FinetuneRun, finetuning.Config, set()),
    ],
)
def test_a_config_of_the_library_has_the_defaults_of_the_run_object(run, config, own):
    """Whoever calls the library without a run object trains as the scripts do."""
    of_run = {f.name.removeprefix("tau_"): f.default for f in dataclasses.fields(run)}
    of_config = {f.name: f.default for f in dataclasses.fields(config)}
    shared = of_run.keys() & of_config.keys() - own
    assert {"learning_rate", "weight_decay", "decay", "batch_size", "rotation", "flip"} <= shared
    assert {name: of_config[name] for name in shared} == {name: of_run[name] for name in shared}


def test_what_changes_no_number_tells_no_runs_apart():
    neutral = {"run": "b", "overwrite": True, "checkpoint_every": 3}
    assert PretrainRun(DFEW) == PretrainRun(DFEW, **neutral, workers=2, log_every=1, look_every=0)
    assert FinetuneRun(CASME2) == FinetuneRun(
        CASME2, **neutral, fold_chunk=2, compare="c", keep_checkpoints=False
    )
    assert hash(PretrainRun(DFEW)) == hash(PretrainRun(DFEW, **neutral))
    assert PretrainRun(DFEW) != PretrainRun(DFEW, seed=1)
    assert FinetuneRun(CASME2) != FinetuneRun(CASME2, init="a")


@pytest.mark.parametrize("kind", [PretrainRun, FinetuneRun])
def test_neutral_fields_are_about_where_and_how_often(kind):
    output = {field.name for field in dataclasses.fields(kind) if not field.compare}
    assert output >= {"run", "overwrite", "checkpoint_every"}
    assert output <= {
        *("run", "overwrite", "checkpoint_every", "log_every", "look_every"),
        *("workers", "fold_chunk", "compare", "keep_checkpoints"),
    }


@pytest.mark.parametrize(
    ("run", "folder"),
    [
        (PretrainRun(DFEW), "runs/dfew-paper-0"),
        (PretrainRun(DFEW, preset="tiny", seed=3), "runs/dfew-tiny-3"),
        (PretrainRun(DatasetSpec("fervk39", "source")), "runs/ferv39k-paper-0"),
        (PretrainRun(DFEW, run="mine"), "mine"),
        (FinetuneRun(CASME2), "runs/casme2-from-none"),
        (FinetuneRun(CASME2, init="runs/dfew-paper-0"), "runs/casme2-from-dfew-paper-0"),
        (FinetuneRun(CASME2, init="w/resnet18.safetensors"), "runs/casme2-from-resnet18"),
        (FinetuneRun(CASME2, **CROSS), "runs/casme2-to-samm-from-none"),
        (FinetuneRun(TWO_PARTS), "runs/megc2019-without-smic-from-none"),
        (FinetuneRun(CASME2, further=(SAMM,)), "runs/casme2-samm-lodo-from-none"),
        (FinetuneRun(CASME2, further=(SAMM,), protocol="loso"), "runs/casme2-samm-loso-from-none"),
        (FinetuneRun(CASME2, run="mine"), "mine"),
        (
            PretrainRun(
                DatasetSpec("synthetic", "source", clips=400),
                **{"preset": "tiny", "space": "pixel", "steps": 600, "batch_size": 16},
                **{"learning_rate": 1e-3, "position_loss": False, "delta": (1, 4)},
            ),
            "runs/synthetic-400-clips-tiny-delta-1-4-pixel-no-lpos-600-steps-batch-16-lr-0.001-0",
        ),
        (PretrainRun(FOLDER, space="pixel"), "runs/folder-videos-paper-pixel-0"),
        (
            FinetuneRun(CASME2, init="runs/dfew-paper-0", seeds=3, flip=False, tune="action"),
            "runs/casme2-from-dfew-paper-0-3-seeds-tune-action-no-flip",
        ),
        (
            FinetuneRun(DRAWN, init="runs/dfew-tiny-0", seeds=3, flip=False, tune="action"),
            "runs/synthetic-4-subjects-5-each-data-seed-7-from-dfew-tiny-0-3-seeds-tune-c83c83",
        ),
        (FinetuneRun(CASME2, protocol="kfold", folds=3), "runs/casme2-kfold-from-none-3-folds"),
        (FinetuneRun(CASME2, protocol="loso"), "runs/casme2-from-none"),
        (
            FinetuneRun(DatasetSpec("csv", "target", root="/mine", annotations="/a/s.xlsx")),
            "runs/csv-mine-by-s-from-none",
        ),
    ],
)
def test_names_of_folders(run, folder):
    assert str(run.folder) == folder


@pytest.mark.parametrize(
    ("name", "given", "protocol", "shown"),
    [
        ("casme2", {}, "loso", "loso"),
        ("samm", {}, "loso", "loso"),
        ("mmew", {}, "kfold", "kfold"),
        ("mmew", {"protocol": "loso"}, "loso", "loso"),
        ("casme2", {"test_target": "samm"}, "cross", "cross, tested on samm"),
        ("casme2", {"further": (SAMM,)}, "lodo", "lodo"),
        ("mmew", {"folds_file": "a/folds.csv"}, "kfold", "the folds of folds.csv"),
    ],
)
def test_the_protocol_is_the_papers_unless_one_is_asked_for(name, given, protocol, shown):
    run = FinetuneRun(DatasetSpec(name, "target"), **given)
    assert (run.chosen_protocol, run.shown_protocol) == (protocol, shown)


def test_the_dataset_that_a_run_is_tested_on():
    assert FinetuneRun(CASME2).test_dataset is None
    assert FinetuneRun(CASME2).datasets == (CASME2,)
    first = dataclasses.replace(
        CASME2, root="/a", annotations="/a/s.xlsx", detector="yunet", detector_model="/y.onnx"
    )
    run = FinetuneRun(first, **CROSS, test_root="/b", test_annotations="/b/t.xlsx")
    assert run.datasets == (first, run.test_dataset)
    assert run.test_dataset == DatasetSpec(
        *("samm", "target", "/b"),
        annotations="/b/t.xlsx",
        detector="yunet",
        detector_model="/y.onnx",
    )


def test_the_parts_left_out_are_of_whichever_dataset_is_a_composite():
    mmew = DatasetSpec("mmew", "target")
    train = FinetuneRun(TWO_PARTS, test_target="mmew")
    assert train.datasets == (TWO_PARTS, mmew)
    test = FinetuneRun(dataclasses.replace(mmew, without="smic"), test_target="megc2019")
    assert test.datasets == (mmew, TWO_PARTS)
    assert test.shown_protocol == "cross, tested on megc2019 without smic"


def test_the_sizes_of_drawn_faces_are_of_whichever_dataset_is_drawn():
    train = FinetuneRun(DRAWN, test_target="samm")
    assert train.datasets == (DRAWN, SAMM)
    sized = dataclasses.replace(CASME2, subjects=4, clips_per_subject=5, data_seed=7)
    test = FinetuneRun(sized, test_target="synthetic")
    assert test.datasets == (CASME2, DRAWN)


def test_a_name_that_is_cut_still_tells_runs_apart():
    pretrained = [f"runs/synthetic-400-clips-tiny-pixel-600-steps-batch-16-lr-{n}-0" for n in "12"]
    runs = [
        FinetuneRun(DRAWN, init=init, epochs=epochs, seeds=seeds)
        for init in pretrained
        for epochs in (3, 4)
        for seeds in (1, 2)
    ]
    names = {run.folder.name for run in runs}
    assert len(names) == len(runs)
    assert max(map(len, names)) <= 80
    assert all("-from-synthetic-400-clips-tiny-" in name for name in names)


def test_every_field_that_changes_numbers_is_in_the_name():
    """But for those of `dataset` and `init`, and for paths of the other dataset."""
    plain = FinetuneRun(CASME2)
    different = [
        {"protocol": "kfold"},
        {"protocol": "kfold", "folds": 3},
        {"protocol": "all"},
        *({name: 7} for name in ("folds_seed", "seeds", "epochs", "batch_size", "rotation")),
        *({name: 0.5} for name in ("decay", "learning_rate", "weight_decay", "translation")),
        {"reconstruction_weight": 0.5},
        {"keep_reconstruction": True},
        {"flip": False},
        {"select": "inner"},
        {"preset": "tiny"},
        {"fusion": "add"},
        {"pooling": "flatten"},
        {"normalisation": "imagenet"},
        {"tune": "action"},
        {"frozen_statistics": "batch"},
        {"augmentation": "crop"},
        {"test_frames": "filtered"},
        {"precision": "float32"},
        {"folds_file": "mine.csv"},
        {"test_target": "samm"},
        {"vae": "my_vae"},
    ]
    fields = {field.name for field in dataclasses.fields(FinetuneRun) if field.compare}
    told = {name for given in different for name in given}
    assert fields - told == {"dataset", "further", "init", "test_root", "test_annotations"}
    runs = [plain, *(dataclasses.replace(plain, **given) for given in different)]
    assert len({run.folder for run in runs}) == len(runs)


def test_a_run_from_one_of_several_networks_is_called_after_it():
    run = FinetuneRun(CASME2, init="weights/moco.safetensors#encoder_q")
    assert run.folder.name == "casme2-from-moco-encoder_q"
