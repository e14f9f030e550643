"""The page of a plan: the paper's numbers and ours side by side, pictures, Markdown and HTML."""

import dataclasses
import re

import numpy as np
import pytest
from stored_runs import NAMES, write_results

from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import blocks
from ma2mi_jax.evaluation.predictions import summary
from ma2mi_jax.reproduction import figures, plans, tables
from ma2mi_jax.reproduction.plans import Size
from ma2mi_jax.reproduction.tables import read_scores
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

REAL = Size(
    PretrainRun(DatasetSpec("dfew", "source")), FinetuneRun(DatasetSpec("casme2", "target"))
)
DRAWN = Size(
    PretrainRun(DatasetSpec("synthetic", "source", clips=40), preset="tiny", space="pixel"),
    FinetuneRun(DatasetSpec("synthetic", "target")),
)


def part_of(number, target, size=REAL, kind="table"):
    asked = {"table": ([number], []), "figure": ([], [number])}[kind]
    (part,) = plans.plan(*asked, [target], size)
    return part


def cells(block):
    """Row name -> column -> texts, for columns may share a name."""
    return {
        row[0]: {
            c: [v for k, v in zip(block.columns, row, strict=True) if k == c] for c in block.columns
        }
        for row in block.rows
    }


# ----- scores -------------------------------------------------------------------------------------


def test_several_runs_of_a_row_are_pooled_as_seeds(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    labels, ours = write_results(a, seed=1, hits=0.9)
    _, others = write_results(b, seed=2, hits=0.4)
    found = read_scores([a, b])
    each = 100 * (np.concatenate([ours, others]) == labels).mean(1)
    assert found.summary["seeds"]["accuracy"]["values"] * 100 == pytest.approx(each)
    assert found.predictions.seeds == [0, 1, 0, 1]
    compared = tables.difference(read_scores([a]), read_scores([b]))
    gain = each[:2].mean() - each[2:].mean()
    assert 100 * compared["accuracy"]["difference"] == pytest.approx(gain)


def test_the_written_class_is_taken_where_rounding_makes_two_equal(tmp_path):
    write_results(tmp_path)
    file = tmp_path / "predictions.csv"
    lines = file.read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:5], "surprise", "0.333333", "0.333333", "0.333333"])
    file.write_text("\n".join(lines) + "\n")
    assert read_scores([tmp_path]).predictions.classes[0, 0] == NAMES.index("surprise")


def test_runs_over_other_clips_are_not_mixed(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write_results(a)
    write_results(b, clips=9)
    with pytest.raises(UserError, match="other clips"):
        read_scores([a, b])
    with pytest.raises(UserError, match="different clips"):
        tables.difference(read_scores([a]), read_scores([b]))


# ----- tables -------------------------------------------------------------------------------------


def test_a_table_has_the_papers_number_and_ours_side_by_side(tmp_path):
    part = part_of(1, "casme2")
    labels, none = write_results(tmp_path / "none", seed=1, hits=0.3, target="casme2")
    _, latent = write_results(tmp_path / "latent", seed=2, hits=0.9, target="casme2")
    found = {name: read_scores([tmp_path / name]) for name in ("none", "latent")}
    found |= {"maer": "it failed", "pixel": "it failed too"}
    content = tables.score_blocks(part, "casme2", found)
    table = cells(content[0])
    ours = 100 * (latent == labels).mean(1)
    last = table["MA2MI"]
    assert (last["paper Acc %"], last["paper UF1"]) == (["89.16"], ["0.8882"])
    assert last["N"] == ["12 (paper 249)"]
    assert last["ours Acc %"] == [f"{ours.mean():.2f} ± {ours.std(ddof=1):.2f}"]
    assert last["ours − paper"][0] == f"{ours.mean() - 89.16:+.2f}"
    assert (table["MAER"]["paper Acc %"], table["MAER"]["ours Acc %"]) == (["83.53"], ["missing"])
    assert [b.text for b in content if isinstance(b, blocks.Text)] == [
        "MAER: it failed.",
        "MA2MI† (pixels): it failed too.",
    ]
    against = cells(content[-1])
    gain = ours.mean() - 100 * (none == labels).mean()
    assert list(against) == ["MA2MI"]
    assert against["MA2MI"]["Acc, points"] == [f"{gain:+.2f}"]
    assert "2 seed(s)" in content[0].caption
    for block in (content[0], content[-1]):
        assert "over subjects and seeds" in block.caption
    assert "Interval: about 93 %, of UF1 90 % (3 subjects)" in content[0].caption
    assert "Interval: 95 %" in content[-1].caption
    low, high = against["MA2MI"]["interval"][0].split(" to ")
    assert float(low) < gain < float(high)


def test_a_row_with_one_seed_holds_its_training_fixed(tmp_path):
    part = part_of(1, "casme2")
    for name, seeds in (("none", 1), ("maer", 2), ("latent", 2)):
        write_results(tmp_path / name, seed=len(name), seeds=seeds, target="casme2")
    found = {name: read_scores([tmp_path / name]) for name in ("none", "maer", "latent")}
    table, _, against = tables.score_blocks(part, "casme2", found | {"pixel": "it failed"})
    assert "subjects and seeds; in 1 of 3 rows over subjects alone" in table.caption
    assert "over subjects and seeds" not in against.caption, "their baseline has one seed"
    assert "the trainings are held fixed" in against.caption


def test_fine_tunings_of_one_pre_training_are_no_trainings_of_their_own(tmp_path):
    for name, hits in (("a", 0.9), ("b", 0.4)):
        write_results(tmp_path / name, seed=1, seeds=3, hits=hits)
    found = read_scores([tmp_path / "a", tmp_path / "b"])
    apart = dataclasses.replace(found.predictions, runs=())
    each, once = (s["seeds"]["accuracy"] for s in (summary(apart, NAMES), found.summary))
    assert np.ptp(once["interval95"]) > np.ptp(each["interval95"])
    assert once["over"] == "subjects and seeds"


def test_on_drawn_faces_there_is_no_difference_to_the_paper(tmp_path):
    part = part_of(3, "synthetic", DRAWN)
    for row in part.rows:
        write_results(tmp_path / row.key)
    found = {row.key: read_scores([tmp_path / row.key]) for row in part.rows}
    (first, *_) = tables.score_blocks(part, "synthetic", found)
    table = cells(first)
    assert not any("−" in column for column in first.columns)
    assert table["none"]["paper, CASME II"] == ["83.94 / 0.8073"]
    assert table["40 drawn clips"]["paper, CASME II"] == ["–"]
    assert "no real dataset" in first.caption


def test_tables_5_and_6_begin_with_the_published_rows(tmp_path):
    write_results(tmp_path, target="mmew")
    found = {"ours": read_scores([tmp_path])}
    table = cells(tables.score_blocks(part_of(6, "mmew"), "mmew", found)[0])
    published = ["LBP-TOP", "KGSL", "MDMO", "TLCNN", "Sparse Transformer", "LD-FMERN"]
    assert list(table) == [*published, "MA2MI, this code"]
    assert table["TLCNN"]["paper Acc %"] == ["69.40"]
    assert table["MA2MI, this code"]["paper Acc %"] == ["75.21"]
    part = part_of(5, "synthetic", DRAWN)
    drawn = cells(tables.score_blocks(part, "synthetic", found)[0])
    assert list(drawn)[::8] == ["DSSN", "MMNet"]
    of_tscnn = [drawn["TSCNN"][f"paper, {name}"] for name in ("CASME II", "SAMM", "MMEW")]
    assert of_tscnn == [["80.97 / 0.8070"], ["–"], ["–"]]
    assert drawn["MA2MI, this code"]["N"] == ["12"]


def test_rows_over_other_clips_stand_in_the_table_and_are_not_compared(tmp_path):
    """A dataset that grew between two runs of a plan costs no page."""
    part = part_of(4, "synthetic", DRAWN)
    for row, clips in zip(part.rows, (12, 9, 12), strict=True):
        write_results(tmp_path / row.key, clips=clips)
    found = {row.key: read_scores([tmp_path / row.key]) for row in part.rows}
    content = tables.score_blocks(part, "synthetic", found)
    assert [cells(content[0])[row.label]["N"] for row in part.rows] == [["12"], ["9"], ["12"]]
    [said] = [block.text for block in content if isinstance(block, blocks.Text)]
    assert "other clips: FPE, without L_pos." in said
    assert list(cells(content[-1])) == ["FPE, with L_pos"]


def test_markdown_and_html_say_the_same(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    content = [
        blocks.Heading("A <b>", 1),
        blocks.Table(["", "x"], [["a|b", "1"], ["<c>", "2"]], "caption"),
        blocks.Items(["one", "<i>"]),
        blocks.Picture(picture, "δ & more", 'what "a" shows'),
        blocks.Code(["python a.py --b='c'"]),
    ]
    markdown, html = blocks.markdown(content, tmp_path), blocks.html("title", content)
    assert "# A <b>\n" in markdown
    assert "| a\\|b | 1 |" in markdown
    assert '![what "a" shows](a.png)\n\n*δ & more*' in markdown
    assert "- one\n- <i>" in markdown
    assert "```\npython a.py --b='c'\n```" in markdown
    assert "<h1>A &lt;b&gt;</h1>" in html
    assert '<td data-column="">&lt;c&gt;</td><td class=number data-column="x">2</td>' in html
    assert "<li>&lt;i&gt;</li>" in html
    assert 'alt="what &quot;a&quot; shows"' in html
    assert 'name="viewport"' in html
    assert "data:image/png;base64,iVBORw==" in html
    assert not re.search(r'(src|href)="(?!data:)', html)  # it needs no other file


def test_a_column_of_dashes_is_left_out():
    table = blocks.Table(
        ("", "paper", "ours", "minus"), [("a", "–", ".5", ""), ("b", "", "–", "–")], "said"
    )
    kept = blocks.without_empty(table)
    assert (kept.columns, kept.rows) == (["", "ours"], [["a", ".5"], ["b", "–"]])
    assert blocks.markdown([table], None).startswith("|  | ours |\n")
    assert "paper" not in blocks.html("title", [table])
    empty = blocks.Table(("", "paper"), [])
    assert list(blocks.without_empty(empty).columns) == ["", "paper"]


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        (["a", "1"], "wide "),
        (["a", *"1234567"], "wide upright"),
        (["a", *["83.94 / .8073"] * 5], "wide stacked"),
    ],
)
def test_a_table_fits_a_narrow_screen(row, layout):
    html = blocks.html("title", [blocks.Table([f"c{i}" for i in range(len(row))], [row])])
    assert f'<div class="{layout}">' in html


# ----- figures ------------------------------------------------------------------------------------


def test_figure_4_has_the_ranges_that_are_there(tmp_path):
    part = part_of(4, "synthetic", DRAWN, "figure")
    write_results(tmp_path / "run")
    found = {row.key: "it failed" for row in part.rows}
    picture = tmp_path / "a.png"
    assert figures.draw_figure4(picture, part, "synthetic", found) is None
    found["3:8"] = read_scores([tmp_path / "run"])
    assert "Drawn faces" in figures.draw_figure4(picture, part, "synthetic", found)
    assert picture.stat().st_size > 5000


def test_figure_5_shows_each_classs_median_change():
    frames = np.zeros((7, 2, 4, 4, 3), np.uint8)
    for i, change in enumerate([9, 1, 5, 2, 40, 30, 20]):
        frames[i, 0], frames[i, 1] = 100, 100 - change
    assert figures.median_pairs(frames, np.array([0, 0, 0, 0, 1, 1, 1])) == [3, 5]
