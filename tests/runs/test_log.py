"""What was logged comes back, also from a file that is damaged in places."""

import json
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import folder, log
from ma2mi_jax.training import finetuning_run
from ma2mi_jax.training.folds import Fold
from ma2mi_jax.training.members import Member
from ma2mi_jax.training.protocol import History


@pytest.mark.parametrize(
    "broken",
    [
        *(b'{"step": 2, "lo', b'{"loss": 2}', b"[2]", b"3", b"\xff\xfe", b'{"step": "2"}'),
        b'{"step": 2, "lpss": 0.5}',  # one bit of a name
    ],
)
def test_a_damaged_line_costs_no_other_and_is_told(tmp_path, broken):
    rows = [b'{"step": 1, "loss": 0.5}', broken, b'{"step": 3, "loss": 0.25}', b'{"step": 4, "lo']
    (tmp_path / log.METRICS).write_bytes(b"\n".join(rows))
    told = []
    assert [line["step"] for line in log.read_metrics(tmp_path, told.append)] == [1, 3]
    assert len(told) == 1
    assert "1 lines are damaged and left out (first: line 2)" in told[0]

    with log.MetricsLog(tmp_path, start=3) as resumed:
        resumed.write(3, {"loss": 0.125})
    assert [line["loss"] for line in log.read_metrics(tmp_path)] == [0.5, 0.125]
    assert not log.read_metrics(tmp_path / "elsewhere")


def written(folder, steps):
    """The lines of a log with these steps."""
    with log.MetricsLog(folder) as open_log:
        for step in steps:
            open_log.write(step, {"loss": 1})
    return (folder / log.METRICS).read_text().splitlines(keepends=True)


def gone_on(folder, start, every):
    """What is said when a run goes on from `start`."""
    said = []
    with log.MetricsLog(folder, start, said.append, every=every):
        pass
    return " ".join(said)


TENS = range(0, 100, 10)


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ({0}, "lines are missing, before step 10; the run"),
        ({30, 50, 60}, "lines are missing, from 20 to 40, from 40 to 70; the run"),
        ({50, 60, 70, 80, 90}, "lines are missing, before step 100; the run"),
        (set(TENS), "lines are missing, before step 100; the run"),
        (set(), ""),
    ],
)
def test_lines_that_are_missing_before_a_checkpoint_are_told(tmp_path, without, told):
    rows = written(tmp_path, TENS)
    kept = [row for step, row in zip(TENS, rows, strict=True) if step not in without]
    (tmp_path / log.METRICS).write_text("".join(kept))
    said = gone_on(tmp_path, 100, every=10)
    assert told in said
    assert bool(said) == bool(told)


@pytest.mark.parametrize("every", [1, 5, 10, 20, 1000])
@pytest.mark.parametrize(
    "steps", [TENS, (0, 10, 20, 25, 30, 50, 57, 64, 71, 78, 85, 92, 99)], ids=["tens", "mixed"]
)
def test_another_spacing_and_looks_in_between_lose_no_lines(tmp_path, steps, every):
    written(tmp_path, steps)
    assert gone_on(tmp_path, 100, every) == ""


def test_lines_of_an_earlier_version_do_not_say_what_came_before(tmp_path):
    rows = [json.dumps({"step": step, "loss": 1}) + "\n" for step in (0, 10, 40)]
    (tmp_path / log.METRICS).write_text("".join(rows))
    with log.MetricsLog(tmp_path, 50, every=10) as open_log:
        open_log.write(50, {"loss": 1})
        open_log.write(60, {"loss": 1})
    assert gone_on(tmp_path, 70, every=10) == ""
    assert [line.get("after") for line in log.read_metrics(tmp_path)] == [None, None, None, 40, 50]


def test_what_was_asked_is_written_again_when_a_run_goes_on(tmp_path):
    content = {"asked": {"steps": 2}, "resolved": {"steps": 2}}
    assert not folder.open_run(tmp_path, content, "summary.json")
    damaged = json.loads((tmp_path / "config.json").read_text()) | {"asked": {"stepr": 2}}
    (tmp_path / "config.json").write_text(json.dumps(damaged))
    assert folder.open_run(tmp_path, content, "summary.json")
    assert json.loads((tmp_path / "config.json").read_text()) == damaged | content


def test_a_run_over_other_prepared_frames_is_not_gone_on_with(tmp_path):
    """One of an earlier version, which does not say what its frames are, goes on and says it."""

    def content(**made_of):
        return {"asked": {"steps": 2}, "resolved": {"clips": "abc", **made_of}}

    def open_run(**made_of):
        return folder.open_run(tmp_path, content(**made_of), "summary.json")

    assert not open_run()
    assert open_run()
    assert open_run(prepared="1")
    assert open_run(prepared="1")
    for other in ({"prepared": "2"}, {}):
        with pytest.raises(UserError, match=r"another configuration .*\(prepared is '1' there, "):
            open_run(**other)


def test_lines_of_an_earlier_version_are_kept_though_they_lack_a_name(tmp_path):
    rows = [f'{{"step": {step}, "loss": 1}}' for step in range(2)]
    rows += [f'{{"step": {step}, "loss": 1, "more": 2}}' for step in range(2, 6)]
    (tmp_path / log.METRICS).write_text("\n".join(rows) + "\n")
    assert [line["step"] for line in log.read_metrics(tmp_path)] == list(range(6))


def events(folder):
    """Those of all files, in their order: a length, its checksum, the event, its checksum."""
    found = []
    for file in sorted(folder.glob("events.out.tfevents*")):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (size,) = struct.unpack("<Q", content[place : place + 8])
            found.append(Event.FromString(content[place + 12 : place + 12 + size]))
            place += 16 + size
    return found


def scalars(folder):
    """Tag -> value by step, as TensorBoard shows them: a restart forgets all steps from it on."""
    seen = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            seen = {
                tag: {step: value for step, value in of.items() if step < event.step}
                for tag, of in seen.items()
            }
        for value in event.summary.value:
            seen.setdefault(value.tag, {})[event.step] = value.simple_value
    return seen


def test_a_fine_tuning_that_goes_on_logs_every_epoch_once(tmp_path):
    """Two chunks of two epochs: the second one is killed after an epoch that was not saved."""
    rng, nobody = np.random.default_rng(0), np.zeros(0, int)
    chunks = [
        [Member(seed, Fold(name, i, nobody, nobody)) for i, name in enumerate("ab")]
        for seed in (0, 1)
    ]
    inner = np.full((2, 2), np.nan)
    histories = [History(rng.random((2, 2)), rng.random((2, 2)), inner, None) for _ in chunks]

    def write(epochs):
        with log.MetricsLog(tmp_path) as open_log:
            for chunk, epoch in epochs:
                finetuning_run.log_epochs(open_log, chunk, chunks[chunk], histories[chunk], epoch)

    write([(0, 0), (0, 1), (1, 0)])
    assert [line["step"] for line in log.read_metrics(tmp_path)] == [0, 1, 2]
    write([(0, 1), (1, 0), (1, 1)])  # a finished chunk is announced by its last epoch
    lines = log.read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert [(line["chunk"], line["epoch"]) for line in lines] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    loss = np.concatenate([history.loss for history in histories])
    assert [line["loss"] for line in lines] == pytest.approx(loss.mean(1))
    assert [line["loss_std"] for line in lines] == pytest.approx(loss.std(1))
    told = [[fold["loss"] for fold in line["folds"]] for line in lines]
    assert told == pytest.approx(loss)
    assert {(fold["seed"], fold["fold"]) for fold in lines[2]["folds"]} == {(1, "a"), (1, "b")}
    assert "inner_accuracy" not in lines[0]

    seen = scalars(tmp_path)
    assert seen.keys() == {"epoch", "loss", "loss_std", "accuracy", "accuracy_std"}
    assert seen["loss"] == pytest.approx(dict(enumerate(loss.mean(1))), rel=1e-5)


def test_the_accuracy_on_held_out_subjects_is_logged_where_an_epoch_is_chosen_by_it(tmp_path):
    member = Member(0, Fold("a", 0, np.zeros(1, int), np.zeros(1, int)))
    one = np.full((1, 1), 0.25)
    with log.MetricsLog(tmp_path) as open_log:
        finetuning_run.log_epochs(open_log, 0, [member], History(one, one, one / 2, None), 0)
    (line,) = log.read_metrics(tmp_path)
    assert (line["inner_accuracy"], line["folds"][0]["inner_accuracy"]) == (0.125, 0.125)
