"""A value of JSON that is not as expected is told by its place."""

from typing import Any, TypedDict

import pytest

from ma2mi_jax.schema import mismatch


class Clip(TypedDict):
    id: str
    spans: list[tuple[int, float]]


class Record(TypedDict):
    clips: list[Clip]
    notes: dict[str, str | None]
    more: Any


GOOD = {"clips": [{"id": "a", "spans": [[1, 2]], "fps": 3}], "notes": {"x": None}, "more": 1}


def test_what_is_as_expected_passes_with_further_keys():
    assert not mismatch(GOOD | {"further": 1}, Record)
    for value, expected in ((3, float), (True, bool), ([], list[int]), ({}, dict[str, int])):
        assert not mismatch(value, expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"clips": {}}, "clips: expected list["),
        ({"clips": [3]}, "clips[0]: expected an object, found 3"),
        ({"clips": [{"id": "a"}]}, "clips[0]: lacks spans"),
        ({"clips": [{"id": 1, "spans": []}]}, "clips[0].id: expected str, found 1"),
        ({"clips": [{"id": "a", "spans": [[1]]}]}, "clips[0].spans[0]: expected tuple["),
        ({"clips": [{"id": "a", "spans": [[0.5, 1]]}]}, "clips[0].spans[0][0]: expected int"),
        ({"clips": [{"id": "a", "spans": [[1, True]]}]}, "clips[0].spans[0][1]: expected float"),
        ({"notes": {"x": 3}}, "notes.x: expected str, found 3"),
        ({"notes": "x" * 99}, "notes: expected dict["),
    ],
)
def test_the_first_difference_is_told_by_its_place(change, told):
    found = mismatch(GOOD | change, Record)
    assert found.startswith(told)
    assert len(found) < 150
