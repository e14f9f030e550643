"""What lies in a run's folder is deleted only where it is a run's."""

import json

import pytest

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import folder

RESULT = "summary.json"
CONTENT = {"asked": {"steps": 2}, "resolved": {"steps": 2}}
OTHERS = {
    "an autoencoder": {"_class_name": "AutoencoderKL", "sample_size": 256},
    "a model folder": {"format": "ma2mi_jax model 1", "config": {}, "classes": []},
    "an empty object": {},
}


@pytest.fixture(params=OTHERS)
def other(request, tmp_path):
    """The folder of another program, or of our own export."""
    files.write_json(tmp_path / folder.CONFIG, OTHERS[request.param])
    (tmp_path / "model.safetensors").write_text("precious")
    return tmp_path


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_kept_whatever_its_config_json(other, overwrite):
    with pytest.raises(UserError, match=r"it is not a run, for its config.json is not a run's"):
        folder.check_run(other, RESULT, overwrite)
    with pytest.raises(UserError, match=r"choose another folder$"):
        folder.open_run(other, CONTENT, RESULT, overwrite)
    assert (other / "model.safetensors").read_text() == "precious"


@pytest.mark.parametrize("first_format", [False, True])
def test_a_run_is_deleted_where_that_is_asked_for(tmp_path, first_format):
    record = {"config": {}, "command": "pretrain.py"} if first_format else CONTENT
    files.write_json(tmp_path / folder.CONFIG, record)
    (tmp_path / RESULT).write_text("{}")
    assert not folder.open_run(tmp_path, CONTENT, RESULT, overwrite=True)
    assert not (tmp_path / RESULT).exists()
    assert json.loads((tmp_path / folder.CONFIG).read_text())["asked"] == CONTENT["asked"]


@pytest.mark.parametrize("beside", ["checkpoints", "metrics.jsonl", RESULT, None])
def test_a_damaged_config_json_is_a_runs_where_something_of_a_run_is_beside_it(tmp_path, beside):
    (tmp_path / folder.CONFIG).write_text('{"asked": ')
    if beside:
        (tmp_path / beside).mkdir()
        assert not folder.check_run(tmp_path, RESULT, overwrite=True)
        return
    with pytest.raises(UserError, match=r"cannot be read, and nothing of a run is beside it"):
        folder.check_run(tmp_path, RESULT, overwrite=True)
