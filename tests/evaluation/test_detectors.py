"""Clips of one's own are cropped as the run's were."""

import dataclasses
import pathlib

import pytest

from ma2mi_jax import hub
from ma2mi_jax.clips import faces
from ma2mi_jax.clips.faces import Detector
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import inference
from ma2mi_jax.training.finished import Finetuned
from ma2mi_jax.training.model_folder import Model
from ma2mi_jax.training.run_files import Stored


def run(recorded="", **chosen):
    """A run over a dataset that was read so, whose faces were found by the detector `recorded`."""
    spec = DatasetSpec("samm", "target", **chosen)
    resolved = {"datasets": [dataclasses.asdict(spec)]}
    resolved |= {"detector": recorded} if recorded else {}
    return Finetuned(pathlib.Path("run"), Stored("finetune", None, resolved, ""), None, [], [])


def model(recorded):
    content = {"input": {"detector": recorded}}
    return Model(pathlib.Path("model"), content, None, ())


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Has a YuNet model as `y.onnx`, no network, and tells how detectors are made."""

    def offline(*_):
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "fetch", offline)
    monkeypatch.setenv("MA2MI_CACHE", str(tmp_path))
    ending = {"none": "", "eyes": faces.EYES}
    monkeypatch.setattr(
        faces,
        "yunet",
        lambda file, align: Detector(f"yunet:{pathlib.Path(file).stem}{ending[align]}", list),
    )
    path = tmp_path / "y.onnx"
    path.write_bytes(b"weights")
    return str(path)


@pytest.mark.parametrize("of", [run, model])
def test_it_is_the_one_that_the_run_recorded(machine, of):
    assert inference.detector_of(of("haar")).name == "haar"
    assert inference.detector_of(of("yunet:y"), model=machine).name == "yunet:y"
    assert inference.detector_of(of("yunet:y+eyes"), model=machine).name == "yunet:y+eyes"


def test_the_runs_model_is_found_where_it_lay(machine):
    recorded = run("yunet:y+eyes", detector_model=machine, align="eyes")
    assert inference.detector_of(recorded).name == "yunet:y+eyes"


def test_another_one_is_refused_unless_it_is_asked_for(machine):
    other = inference.detector_of(run("yunet:z"), model=machine)
    with pytest.raises(UserError, match="were found by yunet:z, and this is yunet:y"):
        other.name  # noqa: B018 - it is chosen when it is needed
    none = inference.detector_of(run("yunet:z"))
    with pytest.raises(UserError, match=r"^detector_model: .*found by yunet:z.*give that file"):
        none.name  # noqa: B018
    assert inference.detector_of(run("yunet:z"), "haar", align="none").name == "haar"
    assert inference.detector_of(run("haar"), "yunet", machine).name == "yunet:y"


def test_how_crops_are_turned_stays_as_it_was_unless_that_is_asked_for_too(machine):
    eyes = run("yunet:z+eyes")
    assert inference.detector_of(eyes, "auto", machine).name == "yunet:y+eyes"
    assert inference.detector_of(eyes, "auto", machine, "none").name == "yunet:y"
    with pytest.raises(UserError, match="align=eyes: needs YuNet"):
        inference.detector_of(eyes, "haar").name  # noqa: B018


def test_a_run_that_recorded_nothing_goes_by_what_it_asked_for(machine):
    assert inference.detector_of(run()).name == "haar"
    assert inference.detector_of(run(detector_model=machine, align="eyes")).name == "yunet:y+eyes"
    assert inference.detector_of(run(detector="haar", detector_model="gone.onnx")).name == "haar"
