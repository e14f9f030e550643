"""SMIC, the composite of MEGC2019, and the functions that relabel, join and match targets."""

import collections
import dataclasses
import pathlib

import commands
import miniatures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ma2mi_jax.clips import pairs as pipeline
from ma2mi_jax.clips.clip import Clip, Dataset, Repair, SetAside
from ma2mi_jax.clips.frames import ArrayFrames
from ma2mi_jax.datasets import casme2, megc2019, prepared, registry, samm, smic
from ma2mi_jax.datasets.common import frame_numbers, merged, micro
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.training import folds


def read(name, root, tmp_path, **options):
    """What `read_dataset` finds; `options` are fields of the DatasetSpec, or its own arguments."""
    own = {name: options.pop(name, None) for name in ("detector", "progress")}
    spec = DatasetSpec(name, "target", root=str(root), **options)
    return registry.read_dataset(spec, size=64, cache=tmp_path / "cache", **own)


def error_of(name, root, tmp_path, **options):
    with pytest.raises(UserError) as error:
        read(name, root, tmp_path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def labels(source):
    return {clip.id: source.classes[clip.label] for clip in source.clips}


def source(name, classes, *clips, **options):
    """Clips given as (subject, class), class None for no label; their ids count on."""
    index = {**{c: i for i, c in enumerate(classes)}, None: -1}
    records = tuple(
        Clip(f"{subject}/{i:03d}", ArrayFrames("x.npy", 2 * i, 2), subject=subject, label=index[c])
        for i, (subject, c) in enumerate(clips)
    )
    return Dataset(name, records, tuple(classes), **options)


# --------------------------------------------------------------------------------------------- SMIC


@pytest.mark.parametrize("home", ["SMIC_all_cropped/HS", "HS", "SMIC/SMIC_all_cropped/HS/HS"])
def test_smic(tmp_path, home):
    miniatures.smic(tmp_path / "data", home)
    found = read("smic", tmp_path / "data", tmp_path)
    assert (found.name, found.classes, found.annotations) == (
        "smic",
        ("negative", "positive", "surprise"),
        "",
    )
    assert labels(found) == {id: emotion for id, (emotion, _, _) in miniatures.SMIC.items()}
    for clip in found.clips:
        _, numbers, apex = miniatures.SMIC[clip.id]
        assert clip.frames.names == tuple(f"reg_image{n:06d}.bmp" for n in numbers)
        assert (clip.subject, clip.onset, clip.apex, clip.offset) == (
            clip.id[:3],
            0,
            apex,
            len(numbers) - 1,
        )
        assert (clip.fps, clip.box, clip.action_units) == (100, None, "")
    assert found.set_aside == (
        SetAside("s02/s02_po_01", "onset and apex need two frames, its folder holds 1"),
        SetAside("s02/s02_po_02", "onset and apex need two frames, its folder holds 0"),
    )
    assert {repair.id for repair in found.repairs} == set(miniatures.SMIC)
    assert {repair.kind for repair in found.repairs} == {frame_numbers.APEX}
    assert found.notes == (
        f"{frame_numbers.APEX}: 4 ({', '.join(miniatures.SMIC)})",
        "N = 4, published 164; classes that differ: negative 2 (published 70), positive 1 "
        "(published 51), surprise 1 (published 43)",
    )


def test_smic_raw_is_cropped_and_gives_way_to_the_cropped_frames(tmp_path):
    miniatures.smic(tmp_path, "SMIC_all_raw/HS", raw=True)
    raw = read("smic", tmp_path, tmp_path)
    assert all(clip.box and 130 < clip.box.size < 170 for clip in raw.clips)
    miniatures.smic(tmp_path)
    cropped = read("smic", tmp_path, tmp_path)
    assert {clip.box for clip in cropped.clips} == {None}
    assert labels(cropped) == labels(raw)


def test_smic_that_is_not_there(tmp_path):
    (tmp_path / "HS" / "s01" / "micro" / "negative" / "s01_ne_01").mkdir(parents=True)
    said = error_of("smic", tmp_path, tmp_path)
    assert said.startswith(
        f"target=smic: looked for {smic.SHOWN} under {tmp_path}, found nothing there (the folder "
        f"holds HS"
    )
    assert "annotations=a.xlsx: target=smic takes no sheet, because it has none" in error_of(
        "smic", tmp_path, tmp_path, annotations="a.xlsx"
    )


# --------------------------------------------------------------------------------------- relabelled


@given(
    st.lists(st.sampled_from([*"abcd", None]), max_size=30),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")),
)
def test_relabelled_clips_are_those_of_the_mapping(classes, mapping):
    before = source("one", "abcd", *[("s", c) for c in classes], notes=("a note",))
    after = merged.relabelled(before, mapping, ("y", "x"))
    assert after.classes == ("y", "x")
    expected = {
        clip.id: mapping[c] for clip, c in zip(before.clips, classes, strict=True) if c in mapping
    }
    assert labels(after) == expected
    unchanged = {clip.id: dataclasses.replace(clip, label=0) for clip in before.clips}
    assert all(dataclasses.replace(clip, label=0) == unchanged[clip.id] for clip in after.clips)
    left_out = len(classes) - len(expected)
    assert after.notes[0] == "a note"
    assert [f"left out: {left_out} (" in note for note in after.notes[1:]] == (
        [True] if left_out else []
    )


def test_relabelled_tells_what_it_leaves_out():
    before = source("one", ("b", "a"), ("s", "a"), ("s", "b"), ("s", None), ("s", "a"))
    assert merged.relabelled(before, {"b": "x"}, ["x"]).notes == (
        "clips of other classes than x, left out: 3 (a 2, no class 1)",
    )


# ------------------------------------------------------------------------------------------- joined


def test_joined_keeps_people_apart_and_all_that_was_told():
    told = {
        "set_aside": (SetAside("02/9", "gone"),),
        "notes": ("one thing",),
        "repairs": (Repair("01/000", "kind", "what"),),
    }
    one = source("one", "ab", ("01", "a"), ("02", "b"), annotations="sheet.xlsx", **told)
    two = source(
        "a two", "ab", ("01", "b"), ("01", "a"), notes=("another",), set_aside=(SetAside("1", "x"),)
    )
    both = merged.joined("both", [one, two])
    assert (both.name, both.classes, both.annotations) == ("both", ("a", "b"), "one/sheet.xlsx")
    assert [(clip.id, clip.subject, clip.label) for clip in both.clips] == [
        ("a two/01/000", "a two/01", 1),
        ("a two/01/001", "a two/01", 0),
        ("one/01/000", "one/01", 0),
        ("one/02/001", "one/02", 1),
    ]
    assert both.clips[2].frames == one.clips[0].frames
    assert both.set_aside == (SetAside("a two/1", "x"), SetAside("one/02/9", "gone"))
    assert both.notes == ("one: one thing", "a two: another")
    assert both.repairs == (Repair("one/01/000", "kind", "what"),)
    assert [fold.name for fold in folds.loso([clip.subject for clip in both.clips])] == [
        "a two/01",
        "one/01",
        "one/02",
    ]


def test_joined_refuses_other_classes_and_equal_names():
    one = source("one", "ab", ("01", "a"))
    for other in (source("two", "ba", ("01", "a")), source("one", "ab", ("03", "a"))):
        with pytest.raises(
            ValueError, match="expected datasets of the same classes and of different names"
        ):
            merged.joined("both", [one, other])


# ------------------------------------------------------------------------------------------- shared


def test_shared_classes_have_one_order_and_clips_on_both_sides():
    train = source(
        "one",
        ("happiness", "fear", "others", "surprise"),
        ("01", "surprise"),
        ("01", "happiness"),
        ("02", "others"),
        ("02", "fear"),
    )
    test = source(
        "two",
        ("surprise", "happiness", "fear", "anger"),
        ("01", "happiness"),
        ("02", "surprise"),
        ("02", "anger"),
    )
    both, class_of = merged.shared([train, test])
    assert (both.name, both.classes) == ("one+two", ("happiness", "surprise"))
    assert labels(both) == {
        "one/01/000": "surprise",
        "one/01/001": "happiness",
        "two/01/000": "happiness",
        "two/02/001": "surprise",
    }
    assert both.notes == (
        "one: clips of other classes than happiness, surprise, left out: 2 (fear 1, others 1)",
        "two: clips of other classes than happiness, surprise, left out: 1 (anger 1)",
    )
    same = {"happiness": "happiness", "surprise": "surprise"}
    assert class_of == {"one": same, "two": same}
    third = source("three", ("surprise", "fear"), ("01", "surprise"), ("02", "fear"))
    with pytest.raises(UserError, match=r"one, two, three: .* found surprise \(one: happiness,"):
        merged.shared([train, test, third])


@pytest.mark.parametrize("swapped", [False, True])
def test_shared_counts_emotions_among_the_three_classes_where_one_side_has_these(swapped):
    three = source(
        "smic", merged.THREE, ("s01", "positive"), ("s01", "negative"), ("s02", "surprise")
    )
    emotions = source(
        "mmew",
        ("disgust", "happiness", "others"),
        ("S01", "happiness"),
        ("S02", "disgust"),
        ("S03", "others"),
    )
    both, class_of = merged.shared([emotions, three] if swapped else [three, emotions])
    assert both.classes == ("negative", "positive")
    assert labels(both) == {
        "mmew/S01/000": "positive",
        "mmew/S02/001": "negative",
        "smic/s01/000": "positive",
        "smic/s01/001": "negative",
    }
    assert class_of["mmew"] == {"disgust": "negative", "happiness": "positive"}
    assert class_of["smic"] == {"negative": "negative", "positive": "positive"}
    assert "mmew: clips of other classes than negative, positive, left out: 1 (others 1)" in (
        both.notes
    )


def test_shared_refuses_the_same_people_and_too_few_classes():
    one = source("one", "ab", ("01", "a"), ("02", "b"))
    composite = merged.joined("both", [one, source("two", "ab", ("01", "a"))])
    for pair in ([composite, one], [one, composite]):
        with pytest.raises(
            UserError,
            match=rf"{pair[1].name} beside {pair[0].name}: 2 of its subjects are in "
            rf"{pair[0].name} too \(for example one/01\)",
        ):
            merged.shared(pair)
    with pytest.raises(
        UserError,
        match=r"one, two: expected two classes or more .*; found a \(one: a, b; two: c, a\); give",
    ):
        merged.shared([one, source("two", "ca", ("01", "a"), ("01", "c"))])
    with pytest.raises(UserError, match=r"found none \(one: a, b; two: a, b\); give other"):
        merged.shared([one, source("two", "ab", ("01", None))])


# ---------------------------------------------------------------------------------------- composite


def test_the_published_numbers_add_up():
    emotions = {"casme2": casme2.THREE, "samm": samm.THREE, "smic": smic.CLASSES}
    for name, (clips, _) in megc2019.PUBLISHED.items():
        counts = collections.Counter()
        for emotion, n in emotions[name].items():
            counts[merged.THREE_OF[emotion]] += n
        counts["negative"] -= len(megc2019.WITHOUT) if name == "casme2" else 0
        assert tuple(counts[c] for c in merged.THREE) == clips
    assert sum(sum(clips) for clips, _ in megc2019.PUBLISHED.values()) == 442
    assert sum(subjects for _, subjects in megc2019.PUBLISHED.values()) == 68
    for reader, paper in ((casme2, casme2.CLASSES_2014), (samm, samm.CLASSES)):
        ours = reader.THREE
        assert {
            emotion: paper[emotion] for emotion in paper if emotion != "others"
        }.items() <= ours.items()


COMPOSITE = {
    "casme2/sub01/EP02_01f": "positive",
    "casme2/sub01/EP03_02": "negative",
    "casme2/sub02/EP06_01f": "negative",
    "casme2/sub02/EP06_02f": "surprise",
    "samm/006/006_1_2": "positive",
    "samm/006/006_5_9": "negative",
    "samm/032/032_3_1": "negative",
    **{f"smic/{id}": emotion for id, (emotion, _, _) in miniatures.SMIC.items()},
}


def test_the_composite(tmp_path):
    miniatures.megc2019(tmp_path)
    found = read("megc2019", tmp_path, tmp_path)
    assert found.name == "megc2019"
    assert labels(found) == COMPOSITE
    assert list(labels(found)) == sorted(COMPOSITE)
    assert (
        found.annotations
        == "casme2/CASME2-coding-20140508.xlsx, samm/SAMM_Micro_FACS_Codes_v2.xlsx"
    )
    assert {clip.fps for clip in found.clips} == {100, 200}
    assert {each.id for each in found.set_aside} == {
        "casme2/sub02/EP06_02f", "casme2/sub03/EP01_01", "samm/010/010_2_1",
        "smic/s02/s02_po_01", "smic/s02/s02_po_02",
    }  # fmt: skip
    assert (
        "casme2: rows of other emotions, which the protocol leaves out: 4 (fear 1, none given 1, "
        "others 2)" in found.notes
    )
    assert found.notes[-2] == (
        "N = 11 of 7 subjects, published 442 of 68; parts that differ: casme2 negative 2 "
        "(published 88), casme2 positive 1 (published 32), "
        "casme2 surprise 1 (published 25), samm negative 2 (published 92), samm positive 1 "
        "(published 26), samm surprise 0 (published 15), "
        "smic negative 2 (published 70), smic positive 1 (published 51), smic surprise 1 "
        "(published 43), casme2 subjects 2 (published 24), "
        "samm subjects 2 (published 28), smic subjects 3 (published 16)"
    )
    alone = read("smic", tmp_path / "smic", tmp_path)
    assert [clip.frames for clip in found.clips if clip.id.startswith("smic/")] == [
        clip.frames for clip in alone.clips
    ]
    pairs, replaced = pipeline.load_pairs(found.clips, 64)
    assert (pairs.shape, replaced) == ((11, 2, 64, 64, 3), [])
    assert (abs(pairs[:, 0].astype(int) - pairs[:, 1]).mean((1, 2, 3)) > 0.5).all(), (
        "an apex shows something that its onset does not"
    )


def test_the_composite_of_the_published_numbers_is_not_told(tmp_path, monkeypatch):
    miniatures.megc2019(tmp_path)
    counts = {"casme2": ((2, 1, 1), 2), "samm": ((2, 1, 0), 2), "smic": ((2, 1, 1), 3)}
    monkeypatch.setattr(megc2019, "PUBLISHED", counts)
    assert not [
        note for note in read("megc2019", tmp_path, tmp_path).notes if note.startswith("N =")
    ]
    monkeypatch.setattr(megc2019, "PUBLISHED", counts | {"samm": ((2, 1, 0), 3)})
    last = read("megc2019", tmp_path, tmp_path).notes[-2]
    assert last == (
        "N = 11 of 7 subjects, published 442 of 68; "
        "parts that differ: samm subjects 2 (published 3)"
    )


def test_the_composite_leaves_two_clips_of_casme2_out_and_takes_all_emotions_of_samm(tmp_path):
    miniatures.megc2019(tmp_path)
    rows = [
        ["01", "EP02_01f", None, 95, 100, 105, None, "12", "happiness"],
        ["04", "EP12_01f", None, 261, "/", 321, None, "4", "disgust"],
    ]
    rows += [["05", "EP09_05f", None, 7, 7, 17, None, "?", "disgust"]]
    miniatures.workbook(
        tmp_path / "casme2" / "CASME2-coding-20140508.xlsx", miniatures.CASME2_HEADINGS, rows
    )
    headings = [
        "Subject",
        "Filename",
        "Onset Frame",
        "Apex Frame",
        "Offset Frame",
        "Estimated Emotion",
    ]
    emotions = ["Disgust", "Fear", "Sadness", "Surprise", "Other"]
    rows = [["010", f"010_1_{n}", 1, 2, 3, emotion] for n, emotion in enumerate(emotions)]
    miniatures.workbook(tmp_path / "samm" / "SAMM_Micro_FACS_Codes_v2.xlsx", headings, rows)
    for n in range(len(emotions)):
        miniatures.clip(
            tmp_path / "samm" / "SAMM" / "SAMM" / "010" / f"010_1_{n}",
            range(1, 4),
            "010_{:05d}.jpg",
        )
    found = read("megc2019", tmp_path, tmp_path)
    assert {id: name for id, name in labels(found).items() if not id.startswith("smic/")} == {
        "casme2/sub01/EP02_01f": "positive",
        **{f"samm/010/010_1_{n}": "negative" for n in range(3)},
        "samm/010/010_1_3": "surprise",
    }
    assert (
        "casme2: clips that MEGC2019 leaves out: 2 (sub04/EP12_01f, sub05/EP09_05f)" in found.notes
    )
    assert (
        "samm: rows of other emotions, which the protocol leaves out: 1 (others 1)" in found.notes
    )


def test_the_composite_without_smic_and_by_the_later_sheet(tmp_path):
    miniatures.casme2(tmp_path / "casme2", 2019)
    miniatures.samm(tmp_path / "samm")
    said = error_of("megc2019", tmp_path, tmp_path)
    assert "found no smic; put them there" in said
    assert said.endswith("or name the parts that you leave out, as in without=smic")
    found = read("megc2019", tmp_path, tmp_path, without="smic")
    expected = {id: name for id, name in COMPOSITE.items() if not id.startswith("smic/")}
    assert labels(found) == {**expected, "casme2/sub06/EP01_01": "surprise"}, (
        "which the sheet of 2014 does not have"
    )
    assert found.notes[0] == "left out as asked: smic"
    assert found.notes[1].startswith("no sheet CASME2-coding-2014… of CASME II")
    assert found.notes[-2].startswith(
        "N = 8 of 5 subjects, published 442 of 68; parts that differ: casme2 negative 2 (published "
        "88), "
    )
    assert "smic" not in found.notes[-1]


def test_a_prepared_composite_lacks_what_is_left_out_and_no_more(tmp_path):
    miniatures.megc2019(tmp_path)
    found = read("megc2019", tmp_path, tmp_path, without="casme2,smic")
    assert {clip.id.partition("/")[0] for clip in found.clips} == {"samm"}
    prepared.write(found, "target", tmp_path / "out", size=32)
    assert len(read("megc2019", tmp_path / "out", tmp_path, without="smic,casme2").clips) == 3
    for without in (None, "smic"):
        said = error_of("megc2019", tmp_path / "out", tmp_path, without=without)
        assert "hold clips of samm alone; say so by without=casme2,smic, or give" in said
    prepared.write(read("megc2019", tmp_path, tmp_path), "target", tmp_path / "whole", size=32)
    said = error_of("megc2019", tmp_path / "whole", tmp_path, without="smic")
    assert said.startswith("without=smic: the prepared data in ")


def test_what_the_composite_cannot_be_made_of(tmp_path):
    miniatures.smic(tmp_path / "smic")
    (tmp_path / "casme2").mkdir()
    assert (
        f"target=megc2019: looked for the datasets' folders casme2, samm, smic in {tmp_path}, "
        f"found no samm;" in (error_of("megc2019", tmp_path, tmp_path))
    )
    assert "found no casme2 and no samm and no smic; put them there" in error_of(
        "megc2019", tmp_path / "absent", tmp_path
    )
    (tmp_path / "samm").mkdir()
    assert "target=casme2: looked for " in error_of("megc2019", tmp_path, tmp_path)
    said = error_of("megc2019", tmp_path, tmp_path, annotations="a.xlsx")
    assert "target=megc2019 takes no sheet, because each of its parts has its own" in said
    prepared.write(
        read("smic", tmp_path / "smic", tmp_path), "target", tmp_path / "prepared", size=32
    )
    (tmp_path / "samm").rmdir()
    (tmp_path / "prepared").rename(tmp_path / "samm")
    assert f"target=megc2019: {tmp_path / 'samm'} holds prepared data" in error_of(
        "megc2019", tmp_path, tmp_path
    )


def test_estimates_and_boxes_are_shared_with_the_datasets_read_alone(tmp_path, monkeypatch):
    miniatures.megc2019(tmp_path)
    found = read("megc2019", tmp_path, tmp_path)
    monkeypatch.setattr(
        micro, "estimate_apex", lambda clip, *_: pytest.fail(f"{clip.id} is estimated again")
    )
    assert read("smic", tmp_path / "smic", tmp_path).clips[0].apex == 4
    assert read("megc2019", tmp_path, tmp_path) == found


@pytest.mark.parametrize("name", ["smic", "megc2019"])
def test_prepared_by_the_command_and_read_back(tmp_path, name):
    miniatures.megc2019(tmp_path / "data")
    environment = commands.one_device(
        MA2MI_DATA=str(tmp_path / "data"), MA2MI_CACHE=str(tmp_path / "cache")
    )
    flags = [f"--target={name}", f"--out={tmp_path / 'out'}", "--size=32"]
    done = commands.run("prepare", *flags, environment=environment)
    assert done.returncode == 0, done.stderr
    assert f"{name}, prepared" in done.stdout
    before = read(name, tmp_path / "data" / (name if name == "smic" else "."), tmp_path)
    after = read(name, tmp_path / "out", tmp_path)
    same = {"frames": before.clips[0].frames, "box": None}
    assert [dataclasses.replace(c, **same) for c in after.clips] == [
        dataclasses.replace(c, **same) for c in before.clips
    ]
    assert [len(clip.frames) for clip in after.clips] == [len(clip.frames) for clip in before.clips]
    assert dataclasses.replace(after, clips=()) == dataclasses.replace(before, clips=())
    ours, theirs = (pipeline.load_pairs(each.clips, 32)[0].astype(int) for each in (before, after))
    assert np.abs(ours - theirs).mean() < 2
    assert f"was prepared from target={name}" in error_of("casme2", tmp_path / "out", tmp_path)


def test_the_composite_lies_where_its_parts_do_unless_it_is_prepared(tmp_path, monkeypatch):
    def place(name, root=None):
        return registry.located(DatasetSpec(name, "target", root=root))

    monkeypatch.setenv("MA2MI_DATA", str(tmp_path))
    assert place("megc2019") == tmp_path
    assert place("smic") == tmp_path / "smic"
    assert place("megc2019", "typed/wrongly") == pathlib.Path("typed/wrongly")
    (tmp_path / "megc2019").mkdir()
    assert place("megc2019") == tmp_path / "megc2019"
