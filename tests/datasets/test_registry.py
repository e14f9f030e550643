"""The registry: what a reader file says is all that the commands know, and DatasetSpec is checked.

The first tests add a dataset to a copy of the repository as a contributor does: one file, and one
line in the registry.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import drawn
import miniatures
import pytest

from ma2mi_jax.clips.clip import Clip, Dataset
from ma2mi_jax.clips.faces import Detector, Face
from ma2mi_jax.clips.frames import ArrayFrames
from ma2mi_jax.datasets import prepared, registry
from ma2mi_jax.datasets.registry import READERS, DatasetSpec, read_dataset
from ma2mi_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOY = '''"""Toyset: frames as `frames/<subject>/<emotion>/<clip>/7.jpg`, from onset to apex."""

from ma2mi_jax.clips.clip import Clip, Dataset
from ma2mi_jax.datasets.common import disk, listing
from ma2mi_jax.datasets.common.reader import Reader

CLASSES = ("happiness", "surprise")


def read(root, *, cache, progress=None):
    """The clips; their folders say what they show."""
    frames = disk.find(root, "frames")
    if frames is None:
        raise disk.not_found("target", "toyset", root, "frames/<subject>/<emotion>/<clip>/7.jpg")
    clips = []
    for path, images in listing.clip_folders(frames, 3, cache=cache).items():
        subject, emotion, _ = path.split("/")
        label, last = CLASSES.index(emotion), len(images) - 1
        clips.append(Clip(path, images, subject=subject, label=label, onset=0, apex=last))
    return Dataset("toyset", tuple(clips), CLASSES)


READER = Reader(
    "toyset",
    "Toy Set",
    kind="target",
    read=read,
    aliases=("toys",),
    published=6,
    protocol="kfold",
    k=3,
)
'''
SCRIPTS = """
import contextlib, io, sys
sys.path.insert(0, "experiments")
import cli, flags, inspect_dataset, prepare, pretrain, finetune, reproduce
from ma2mi_jax.training import finetuning_run
from ma2mi_jax.training.run_config import FinetuneRun

def said(script, *flags):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        script.main(list(flags))
    return " ".join(out.getvalue().split())

for script in (inspect_dataset, prepare, finetune, reproduce):
    assert "toyset (Toy Set, also toys)" in said(script, "--help"), script
assert "toyset" not in said(pretrain, "--help")
plan = said(reproduce, "--target=toys", "--table=4", "--source=folder", "--dry-run")
assert "python experiments/finetune.py --target=toyset --init=" in plan, plan

def stop(clips, classes):  # called when clips and folds are there, before the training
    sys.exit(f"{len(clips)} clips of {', '.join(classes)}")

run = flags.parse(FinetuneRun, ["--target=toys", "--preset=smoke"])
assert run.chosen_protocol == "kfold"
finetuning_run.carry_out(run, check=stop)  # three folds: five would be more than the subjects
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the repository with one dataset more."""
    copy = tmp_path_factory.mktemp("repository")
    for folder in ("ma2mi_jax", "experiments"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "ma2mi_jax" / "datasets" / "toyset.py").write_text(TOY)
    path = copy / "ma2mi_jax" / "datasets" / "registry.py"
    text = path.read_text()
    for known, new in (
        ("    synthetic,\n", "    toyset,\n"),
        ("    smic.READER,\n", "    toyset.READER,\n"),
    ):
        assert text.count(known) == 1
        text = text.replace(known, known + new)
    path.write_text(text)
    return copy


@pytest.fixture
def toyset(tmp_path):
    """The dataset: three subjects, two clips each."""
    for subject in ("s1", "s2", "s3"):
        for emotion in ("happiness", "surprise"):
            clip = tmp_path / "data" / "toyset" / "frames" / subject / emotion / "a"
            miniatures.clip(clip, range(1, 8), "{}.jpg", peak=7)
    return tmp_path / "data"


def run(repository, *command, data, check=0):
    """Runs Python in the copy; returns what it says."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"MA2MI_DATA": str(data), "MA2MI_CACHE": str(data.parent / "cache")}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == check, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_a_new_dataset_is_in_the_help_of_the_commands_and_can_be_trained_on(repository, toyset):
    said = run(repository, "-c", SCRIPTS, data=toyset, check=1)
    assert said.strip().endswith("6 clips of happiness, surprise")


def test_a_new_dataset_can_be_inspected(repository, toyset, tmp_path):
    out = f"--out={tmp_path / 'page'}"
    said = run(repository, "experiments/inspect_dataset.py", "--target=toys", out, data=toyset)
    assert "published" in said
    assert all(f"fold{k}" in said for k in (1, 2, 3))  # its own protocol: three folds
    assert (tmp_path / "page" / "clips-01.jpg").exists()


def test_a_new_dataset_can_be_prepared(repository, toyset, tmp_path):
    flags = ["--target=toyset", f"--out={tmp_path / 'out'}", "--size=32"]
    said = run(repository, "experiments/prepare.py", *flags, data=toyset)
    assert "toyset, prepared" in said
    assert prepared.is_prepared(tmp_path / "out")
    assert len(prepared.read(tmp_path / "out", "toyset", "target").clips) == 6


REFUSED = """
import sys
sys.path.insert(0, "experiments")
import cli, inspect_dataset
from ma2mi_jax.datasets import registry

for flags in (["--target=toyset"], ["--target=toyset", "--annotations=a.xlsx"]):
    sys.argv = ["inspect_dataset", *flags]
    try:
        cli.run(inspect_dataset.main)
    except SystemExit as end:
        assert end.code == 2, end
registry.reader("target", "toy")
"""


def test_a_new_dataset_is_named_in_messages(repository, tmp_path):
    said = run(repository, "-c", REFUSED, data=tmp_path, check=1)
    looked = "--target=toyset: looked for frames/<subject>/<emotion>/<clip>/7.jpg under"
    assert f"{looked} {tmp_path}" in said
    assert "give another --data-root" in said
    assert "a.xlsx: --target=toyset takes no sheet, because it has none" in said
    assert "target=toy: no such target; give casme2, samm, mmew, smic, toyset, casme" in said


# ----- readers ------------------------------------------------------------------------------------


def test_every_reader_takes_what_it_says():
    """`takes` and the arguments of `read` agree, and a name is unique in its kind."""
    known = {field.name for field in registry.CHOSEN}
    for each in READERS:
        code = each.read.__code__
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        assert set(each.takes) <= known & set(arguments)
        assert {"cache", "progress"} <= set(arguments)
        assert known & set(arguments) == {*each.takes, "root"}, each.name
        assert ("size" in arguments) or not each.drawn
    names = [(each.kind, name) for each in READERS for name in (each.name, *each.aliases)]
    assert len(set(names)) == len(names)


def test_names_titles_and_protocols_of_the_paper():
    assert registry.SOURCES == ("dfew", "ferv39k", "afew", "mafw", "folder", "synthetic")
    assert registry.TARGETS[:4] == ("casme2", "samm", "mmew", "smic")
    titles = {name: registry.reader("target", name).title for name in ("casme2", "samm", "mmew")}
    assert titles == {"casme2": "CASME II", "samm": "SAMM", "mmew": "MMEW"}
    published = [registry.reader("target", name).published for name in titles]
    assert published == [249, 136, 234]
    protocols = {each.name: each.protocol for each in READERS if each.kind == "target"}
    assert protocols.pop("mmew") == protocols.pop("dfme") == "kfold"
    assert set(protocols.values()) == {"loso"}


# ----- DatasetSpec --------------------------------------------------------------------------------


def test_an_alias_becomes_the_name():
    assert DatasetSpec("fervk39", "source").name == "ferv39k"
    assert registry.reader("source", "fervk39").title == "FERV39k"


def test_where_a_dataset_lies(tmp_path, monkeypatch):
    monkeypatch.delenv("MA2MI_DATA", raising=False)

    def place(name, **chosen):
        return registry.located(DatasetSpec(name, "target", **chosen))

    assert place("samm") == pathlib.Path("data/samm")
    monkeypatch.setenv("MA2MI_DATA", str(tmp_path))
    assert place("samm") == tmp_path / "samm"
    assert place("samm", root="elsewhere") == pathlib.Path("elsewhere")
    assert place("megc2019") == tmp_path  # its parts lie there
    (tmp_path / "megc2019").mkdir()
    assert place("megc2019") == tmp_path / "megc2019"


@pytest.mark.parametrize(
    ("name", "kind", "chosen", "said"),
    [
        ("dfew", "source", {"annotations": "a"}, "annotations=a: only a target has"),
        ("samm", "target", {"split": "a"}, "split=a: only a source has splits"),
        ("dfew", "source", {"clips": 9}, "clips=9 is only for source=synthetic; remove it"),
        ("synthetic", "target", {"clips": 9}, "clips=9 is only for source=synthetic; remove it"),
        ("samm", "target", {"data_seed": 1}, "data_seed=1 is only for target=synthetic"),
        ("synthetic", "source", {"root": "x"}, "root=x: no prepared data lie there, and the faces"),
        ("folder", "source", {"split": "a"}, "split=a: source=folder has no splits; remove it"),
        ("smic", "target", {"annotations": "a"}, "target=smic takes no sheet, because it has none"),
        ("megc2019", "target", {"annotations": "a"}, "because each of its parts has its own"),
        ("samm", "target", {"without": "smic"}, "without=smic: target=samm has no parts; remove"),
        ("megc2019", "target", {"without": "mmew"}, "expected one or more of casme2, samm, smic"),
        ("megc2019", "target", {"without": "casme2,samm,smic"}, "by commas, but not all of them"),
        ("dfew", "source", {"classes": 3}, "classes=3: only a target has class sets; remove it"),
        ("samm", "target", {"classes": 4}, "target=samm has no such class set; give 3 or 5"),
        ("smic", "target", {"classes": 5}, "target=smic has no such class set; give 3"),
        ("synthetic", "target", {"classes": 3}, "give none, because it has but one"),
        ("synthetic", "source", {"align": "eyes"}, "align=eyes: no face is looked for in source="),
        ("synthetic", "source", {"clips": 0}, "clips=0: expected at least 1"),
        ("synthetic", "target", {"amplitude": 2.0}, "amplitude=2.0: expected at most 1"),
        ("nonsense", "source", {}, "source=nonsense: no such source; give dfew, ferv39k"),
    ],
)
def test_what_means_nothing_is_refused(name, kind, chosen, said):
    with pytest.raises(UserError) as error:
        registry.check(DatasetSpec(name, kind, **chosen))
    assert said in str(error.value)


def test_a_default_that_a_person_set_is_refused_too():
    spec = DatasetSpec("samm", "target", subjects=12)
    registry.check(spec)
    with pytest.raises(UserError, match=r"^subjects=12 is only for target=synthetic; remove it$"):
        registry.check(spec, given={"subjects"})


def test_a_detector_is_no_difference_between_drawn_faces():
    """Runs that were recorded when haar was the default are still those that are asked for."""
    assert DatasetSpec("synthetic", "target", detector="haar") == DatasetSpec("synthetic", "target")
    assert DatasetSpec("samm", "target", detector="haar") != DatasetSpec("samm", "target")


@pytest.mark.parametrize("searched", [True, False])
def test_what_found_the_faces_is_told_once_and_recorded(tmp_path, searched):
    """In what is read, and in prepared data; if no frame is searched, there is nothing to tell."""
    shape = (240, 320) if searched else (240, 240)
    for clip in ("a", "b"):
        images = [drawn.face(120, 110, 120, shape=shape)] * 3
        drawn.image_folder(tmp_path / "SMIC_all_raw/HS/s01/micro/positive" / clip, images)
    spec = DatasetSpec("smic", "target", root=str(tmp_path))
    eyes = Detector("fake+eyes", lambda image: [Face(120, 120, 130, 7.0)], "it was at hand")
    found = read_dataset(spec, size=64, cache=tmp_path / "cache", detector=eyes)
    told = [note for note in found.notes if note.startswith("faces are found by")]
    assert told == ["faces are found by fake+eyes: it was at hand"] * searched
    assert found.detector == "fake+eyes" * searched
    assert [clip.box and clip.box.angle for clip in found.clips] == [7.0 if searched else None] * 2

    prepared.write(found, "target", tmp_path / "out", size=32)
    ready = dataclasses.replace(spec, root=str(tmp_path / "out"))
    assert read_dataset(ready, size=32).detector == found.detector
    with pytest.raises(UserError, match=r"^align=eyes: .*out holds prepared data"):
        registry.check(dataclasses.replace(ready, align="eyes"))


def test_a_crop_that_is_not_turned_is_told(tmp_path):
    for clip in ("a", "b"):
        drawn.image_folder(
            tmp_path / "SMIC_all_cropped/HS/s01/micro/positive" / clip,
            [drawn.face(120, 110, 120, shape=(240, 240))] * 3,
        )
    spec = DatasetSpec("smic", "target", root=str(tmp_path), align="eyes")
    found = read_dataset(spec, size=64, cache=tmp_path / "cache")
    assert found.detector == ""
    assert found.notes[-1].startswith("the frames are face crops already: none is turned")


def test_drawn_faces_are_read_once_they_are_prepared(tmp_path):
    spec = DatasetSpec("synthetic", "source", clips=7, data_seed=3)
    drawn = read_dataset(spec, size=32, cache=tmp_path / "cache")
    assert len(drawn.clips) == 7
    assert isinstance(drawn.clips[0].frames, ArrayFrames)
    prepared.write(drawn, "source", tmp_path / "out", size=32)
    ready = DatasetSpec("synthetic", "source", root=str(tmp_path / "out"))
    assert [clip.id for clip in read_dataset(ready, size=32).clips] == [c.id for c in drawn.clips]
    with pytest.raises(UserError, match=r"^clips=7: .*out holds prepared data, .*; remove it$"):
        registry.check(DatasetSpec("synthetic", "source", root=str(tmp_path / "out"), clips=7))


def test_the_cache_is_by_default_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MA2MI_CACHE", str(tmp_path / "mine"))
    read_dataset(DatasetSpec("synthetic", "source", clips=7), size=16)
    assert list((tmp_path / "mine" / "synthetic").glob("macro-*.npy"))


def test_help_names_datasets_and_no_flags():
    for name in ("source", "target", *(field.name for field in registry.CHOSEN)):
        assert "--" not in registry.help_of(name)
    assert "(only for casme2, samm, mmew, casme" in registry.help_of("annotations")
    assert "megc2019" in registry.help_of("root")
    assert "megc2019" not in registry.help_of("root", kinds=("source",))


def test_a_dataset_of_another_name_is_not_taken_for_this_one(tmp_path):
    frames = read_dataset(
        DatasetSpec("synthetic", "source", clips=7), size=32, cache=tmp_path / "cache"
    )
    clips = tuple(Clip(clip.id, clip.frames) for clip in frames.clips)
    prepared.write(Dataset("dfew", clips), "source", tmp_path / "out", size=32)
    with pytest.raises(UserError, match=r"source=afew: .* was prepared from source=dfew"):
        read_dataset(DatasetSpec("afew", "source", root=str(tmp_path / "out")), size=32)
