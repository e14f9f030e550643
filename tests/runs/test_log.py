"""What was logged comes back, also from a file that is damaged in places."""

import pytest

from ma2mi_jax.runs import log


@pytest.mark.parametrize(
    "broken", [b'{"step": 2, "lo', b'{"loss": 2}', b"[2]", b"3", b"\xff\xfe", b'{"step": "2"}']
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
