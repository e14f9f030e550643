"""The table of the miniatures in docs/datasets.md says what the readers say."""

import pathlib
import re

import miniatures
import pytest
from reading import read

from ma2mi_jax.clips import faces

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "datasets.md"
ROW = re.compile(r"\| `--(source|target)=(\w+) --data-root=M(\S*)` \| (.+) \|")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("M")
    for name, build in miniatures.ALL.items():
        (folder / name).mkdir()
        build(folder / name)
    return folder


def test_each_miniature_is_in_the_table():
    assert {name for _, name, *_ in ROW.findall(PAGE.read_text())} >= set(miniatures.ALL)


@pytest.mark.parametrize("row", ROW.findall(PAGE.read_text()), ids=lambda row: row[1])
def test_the_table_has_what_the_reader_says(row, home, tmp_path):
    kind, name, folder, cells = row
    clips, published, set_aside, repairs, classes, subjects, _ = cells.split(" | ")
    found = read(name, f"{home}{folder}", tmp_path, detector=faces.haar())
    counted = {
        "clips": len(found.clips),
        "set aside": len(found.set_aside),
        "repairs": len(found.repairs),
        "classes": len(found.classes) or "–",
        "subjects": len({clip.subject for clip in found.clips}) if kind == "target" else "–",
    }
    told = zip(counted, (clips, set_aside, repairs, classes, subjects), strict=True)
    assert {key: str(value) for key, value in counted.items()} == dict(told)
    assert published.isdigit() or published == "–"
