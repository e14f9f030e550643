"""The page for the eye."""

import csv
import itertools
import os
import pathlib
import re
import runpy
import sys

import commands
import cv2
import drawn
import miniatures
import numpy as np
import pytest

from ma2mi_jax.clips.clip import Clip, Dataset, Repair, SetAside
from ma2mi_jax.clips.frames import ArrayFrames
from ma2mi_jax.datasets import prepared
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.evaluation import inspection

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLASSES = ("happiness", "disgust")


@pytest.fixture
def inspect(monkeypatch, tmp_path, capsys):
    """Runs the script in this process: inspect(*flags) -> what it prints."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.setenv("MA2MI_CACHE", str(tmp_path / "cache"))
    import cli

    def run(*flags, code=0):
        monkeypatch.setattr(sys, "argv", ["inspect", *map(str, flags)])
        with pytest.raises(SystemExit) as stopped:
            cli.run(runpy.run_path(str(ROOT / "experiments" / "inspect_dataset.py"))["main"])
        printed = capsys.readouterr()
        assert stopped.value.code == code, printed.err
        return printed.out if code == 0 else printed.err

    return run


def test_a_rate_below_one_is_no_unknown_one():
    frames = ArrayFrames("", 0, 8)
    clips = [Clip(str(i), frames, fps=fps) for i, fps in enumerate((0.5, 0.5, 0.5, 0, 0, 25))]
    dataset = Dataset("folder", tuple(clips))
    _, table, *_ = inspection.counts(DatasetSpec("folder", "source"), dataset)
    rows = dict(table.rows)
    assert rows["frames per second"] == "3 at 0.5, 2 unknown, 1 at 25"


@pytest.fixture
def micro(tmp_path):
    """A prepared target with seven subjects, a repair and a clip set aside; red is what moves."""
    film = np.full((8, 64, 64, 3), 90, np.uint8)
    film[5:, 20:30, 20:30, 0] = 130
    np.save(tmp_path / "film.npy", film)
    frames = ArrayFrames(str(tmp_path / "film.npy"), 0, 8)
    clips = [
        Clip(
            f"s{i % 7}/{i:02d}",
            frames,
            subject=f"s{i % 7}",
            label=int(i > 10),
            onset=1,
            apex=6,
            offset=7,
            fps=90.0,
            action_units="4+L10A",
        )
        for i in range(14)
    ]
    clips.sort(key=lambda clip: clip.id)
    repairs = (
        Repair("s0/00", "the apex was missing", "estimated at 6"),
        Repair("s1/01", "the apex was missing", "estimated at 6"),
    )
    aside = tuple(SetAside(f"t{i:02d}", "no frames on disk") for i in range(20))
    source = Dataset(
        "mmew", tuple(clips), CLASSES, aside, ("apexes estimated: 2",), "sheet.xlsx", repairs
    )
    prepared.write(source, "target", tmp_path / "prepared", size=64)
    return tmp_path / "prepared"


def test_fervk39_is_ferv39k(inspect, tmp_path):
    np.save(tmp_path / "film.npy", np.full((8, 64, 64, 3), 90, np.uint8))
    clips = tuple(
        Clip(name, ArrayFrames(str(tmp_path / "film.npy"), 0, 8), label=0) for name in "ab"
    )
    prepared.write(Dataset("ferv39k", clips, CLASSES), "source", tmp_path / "prepared", size=64)
    for name in ("ferv39k", "fervk39"):
        text = inspect(
            f"--source={name}",
            f"--data-root={tmp_path / 'prepared'}",
            f"--out={tmp_path / name}",
            "--size=64",
        )
        assert text.startswith(f"ferv39k, {tmp_path / 'prepared'}")


def rows_of(text, title):
    """The cells of the table under `title`, by their first."""
    lines = text[text.index(title) :].splitlines()[4:]
    body = lines[: next(i for i, line in enumerate(lines) if not line.strip())]
    return {cells[0]: cells[1:] for cells in (line.split() for line in body)}


def test_a_target_is_counted_by_class_subject_and_fold(inspect, micro, tmp_path):
    out = tmp_path / "page"
    text = inspect("--target=mmew", f"--data-root={micro}", f"--out={out}", "--size=64")
    assert rows_of(text, "Clips per class") == {
        "happiness": ["11", "78.6%", "7"],
        "disgust": ["3", "21.4%", "3"],
    }
    subjects = rows_of(text, "Clips per subject")
    assert list(subjects) == [f"s{i}" for i in range(7)]
    assert subjects["s4"][1:] == ["2", "1", "1"]
    folds = rows_of(text, "Clips per fold")
    assert sorted(folds) == [f"fold{i}" for i in range(1, 6)]  # the protocol of MMEW
    assert sum(int(cells[1]) for cells in folds.values()) == 14
    for name, cells in subjects.items():
        assert cells[0] in folds, name
    assert rows_of(text, "Lengths, in frames") == {
        "frames": ["of", "a", "clip", "8", "8", "8"],
        "onset": ["to", "offset", "6", "6", "6"],  # and to the apex, 5, in the row before
    }
    assert "14 at 90" in text
    assert "  apexes estimated: 2" in text


def test_every_irregular_row_has_its_fate(inspect, micro, tmp_path):
    out = tmp_path / "page"
    text = inspect("--target=mmew", f"--data-root={micro}", f"--out={out}", "--size=64")
    assert "Set aside, 20: no frames on disk" in text
    assert "and 8 more, in" in text
    assert "Repaired, 2: the apex was missing" in text
    with (out / "irregular.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["fate"] for row in rows] == ["set aside"] * 20 + ["repaired"] * 2
    assert rows[-1] == {
        "fate": "repaired",
        "clip": "s1/01",
        "why": "the apex was missing",
        "what was done": "estimated at 6",
    }


def test_the_page_holds_tables_and_pictures(inspect, micro, tmp_path):
    out = tmp_path / "page"
    inspect("--target=mmew", f"--data-root={micro}", f"--out={out}", "--size=64")
    page = (out / "index.html").read_text()
    assert "<h2>Clips per subject</h2>" in page
    assert "<li>apexes estimated: 2</li>" in page
    assert 'name="viewport"' in page
    assert str(tmp_path) not in page
    alts = re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="([^"]+)">', page)
    assert len(alts) == 14  # 12 clips, and 2 with a repair
    assert alts[-1] == "Frames of s1/01, happiness, action units 4+L10A"
    said = "s1/01, happiness, action units 4+L10A. From left to right: onset, frame 1 of 8; apex, "
    assert f"<figcaption>{said}frame 6 of 8; apex − onset, × 3.4.</figcaption>" in page
    strip = cv2.imread(str(out / "repaired-02.jpg"))
    assert strip.shape == (64, 3 * 64, 3)
    blue, _, red = strip[:, 128:].astype(int).transpose(2, 0, 1)  # of apex − onset
    assert (red - blue)[22:28, 22:28].min() > 80
    assert abs(red - blue)[40:, 40:].max() < 20


def test_the_page_shows_what_was_cropped_of_files_by_their_names(inspect, tmp_path):
    miniatures.casme2(tmp_path / "casme2", 2019, frames="CASME2_RAW_selected")
    out = tmp_path / "page"
    words = ("--target=casme2", f"--data-root={tmp_path / 'casme2'}", f"--out={out}", "--size=96")
    assert "7 by one box a clip" in inspect(*words)
    page = (out / "index.html").read_text()
    said = (
        "sub01/EP02_01f, happiness, action units 12. From left to right: onset before the crop, "
        "with a line around it; onset, img95.jpg; apex, img100.jpg; apex − onset, ×"
    )
    assert said in page
    strip = cv2.imread(str(out / "clips-01.jpg"))
    assert strip.shape == (96, 128 + 3 * 96, 3)  # 320 × 240, and three crops
    blue, green, red = strip[:, :128].astype(int).transpose(2, 0, 1)
    line = (green - np.maximum(blue, red)) > 60
    assert line[:, 40:].any()
    assert not ((strip[:, 128:, 1].astype(int) - strip[:, 128:, 2]) > 60).any()


def test_videos_are_told_from_frames_that_were_taken_whole(inspect, tmp_path):
    talk = [miniatures.person(mouth=i % 3 / 2) for i in range(9)]
    drawn.video(tmp_path / "films" / "a.avi", talk, "MJPG")
    drawn.image_folder(tmp_path / "films" / "b", [miniatures.picture(i) for i in range(9)])
    out = tmp_path / "page"
    words = ("--source=folder", f"--data-root={tmp_path / 'films'}", f"--out={out}", "--size=96")
    assert "1 cropped from their videos" in inspect(*words)
    page = (out / "index.html").read_text()
    assert "a, from a.avi. From left to right: first before the crop, with a line around" in page
    assert "first, frame 0; middle, frame 4; last, frame 8;" in page


def test_no_script_in_a_name_runs(inspect, tmp_path):
    np.save(tmp_path / "film.npy", np.full((8, 64, 64, 3), 90, np.uint8))
    frames = ArrayFrames(str(tmp_path / "film.npy"), 0, 8)
    evil = '<script>alert("1")</script>'
    clips = (Clip(evil, frames, subject=evil, label=0, onset=1, apex=6, action_units=evil),)
    told = (SetAside(evil, evil),), (evil,), evil, (Repair(evil, evil, evil),)
    found = Dataset("mmew", clips, (evil,), *told)
    prepared.write(found, "target", tmp_path / "<b>prepared", size=64)
    out = tmp_path / "page"
    inspect("--target=mmew", f"--data-root={tmp_path / '<b>prepared'}", f"--out={out}", "--size=64")
    page = (out / "index.html").read_text()
    assert page.count("&lt;script&gt;") > 8
    assert "<script" not in page
    assert "<b>" not in page
    assert """content="default-src 'none';""" in page


@pytest.mark.parametrize("values", [[5], [3, 4], [0, 7, 9, 100], list(range(47, 123))])
def test_a_histogram_has_ranges_of_one_width(values):
    found = inspection.histogram(values)
    assert len({len(span) for span, _ in found}) == 1
    assert len(found) <= inspection.BINS
    assert sum(count for _, count in found) == len(values)
    assert found[0][0][0] == min(values)
    assert max(values) in found[-1][0]
    for (span, _), (after, _) in itertools.pairwise(found):
        assert after[0] == span[-1] + 1


def test_folders_are_not_told_to_others(tmp_path):
    said = f"no such folder below {tmp_path}: {tmp_path / 'a' / 'b'}"
    dataset = Dataset("csv", (), set_aside=(SetAside("a", said),))
    (aside,) = inspection.without_folder(dataset, tmp_path).set_aside
    assert aside.reason == f"no such folder below {tmp_path.name}: {os.path.join('a', 'b')}"


def test_a_source_without_labels_and_repairs(inspect, tmp_path):
    film = np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "film.npy", film)
    clips = tuple(Clip(f"{i}", ArrayFrames(str(tmp_path / "film.npy"), 0, 3 + i)) for i in range(5))
    prepared.write(Dataset("folder", clips), "source", tmp_path / "prepared", size=32)
    text = inspect(
        "--source=folder",
        f"--data-root={tmp_path / 'prepared'}",
        f"--out={tmp_path / 'page'}",
        "--size=32",
    )
    assert rows_of(text, "Lengths, in frames") == {"frames": ["of", "a", "clip", "3", "5", "7"]}
    assert "Irregular rows\nNone." in text
    assert "Clips per class" not in text
    assert not (tmp_path / "page" / "repaired-01.jpg").exists()


def test_too_few_subjects_for_the_protocol_can_be_looked_at(inspect, tmp_path):
    film = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "film.npy", film)
    clips = tuple(
        Clip(
            f"s{i}/1",
            ArrayFrames(str(tmp_path / "film.npy"), 0, 4),
            subject=f"s{i}",
            label=0,
            onset=0,
            apex=2,
        )
        for i in range(3)
    )
    prepared.write(Dataset("mmew", clips, CLASSES), "target", tmp_path / "prepared", size=32)
    text = inspect(
        "--target=mmew",
        f"--data-root={tmp_path / 'prepared'}",
        f"--out={tmp_path / 'page'}",
        "--size=32",
    )
    assert "No folds: protocol=kfold: 5 folds over 3 subjects" in text  # it has no such flag
    assert rows_of(text, "Clips per subject") == {
        f"s{i}": ["none", "1", "1", "0"] for i in range(3)
    }
    assert "Clips per fold" not in text
    assert (tmp_path / "page" / "clips-01.jpg").exists()


def test_bad_flags_end_in_one_line(inspect, tmp_path):
    assert "only a --target" in inspect("--source=dfew", "--annotations=a.xlsx", code=2)
    assert "only a --source" in inspect("--target=samm", "--split=train", code=2)
    assert "--clips=9 is only for --source=synthetic; remove it" in inspect(
        "--target=synthetic", "--clips=9", code=2
    )
    assert "--data-seed=0 is only for --target=synthetic; remove it" in inspect(
        "--target=samm", "--data-seed=0", code=2
    )
    assert "missing" in inspect(
        "--target=casme2", f"--data-root={tmp_path / 'missing'}", f"--out={tmp_path}", code=2
    )


SCRIPTS = sorted((ROOT / "experiments").glob("*.py"))


def test_no_script_hides_a_module_of_python():
    """experiments/ comes first on the path of each: a script `inspect` would be imported as the
    standard library's."""
    assert not {path.stem for path in SCRIPTS} & sys.stdlib_module_names


@pytest.mark.parametrize(
    "script", [path.stem for path in SCRIPTS if "cli.run(main)" in path.read_text()]
)
def test_every_script_runs_beside_it(script):
    done = commands.run(script, "--help", environment=commands.one_device())
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script}.py")
