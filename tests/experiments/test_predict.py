"""predict.py on videos, folders and pairs, good and bad ones side by side, with a run of three
subjects."""

import errno
import json
import os
import pathlib
import re
import runpy

import cli
import commands
import cv2
import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ma2mi_jax.clips import frames, head
from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.clips.spotting import Spotted
from ma2mi_jax.datasets.common import extract
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import calibration, gradcam, inference, own_clips
from ma2mi_jax.training import finetuning, finished

ROOT = pathlib.Path(__file__).resolve().parents[2]
FRAMES = [drawn.face(160, 120, 110, mouth=m) for m in (0, 0, 0, 0, 0.2, 0.5, 0.8, 1.0, 1.0, 0.9)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    environment = commands.one_device()
    flags = [*commands.TWELVE_CLIPS, f"--run={folder}"]
    done = commands.run("finetune", *flags, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def script():
    """The script's own names; it runs in this process."""
    return runpy.run_path(str(ROOT / "experiments" / "predict.py"))


@pytest.fixture
def clips(tmp_path):
    """One clip of each kind, and some that are none."""
    drawn.video(tmp_path / "talk.mp4", FRAMES)
    drawn.image_folder(tmp_path / "frames", FRAMES)
    drawn.image_folder(tmp_path / "walls", [np.full((240, 320, 3), 90, np.uint8)] * 5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return tmp_path


def written(out):
    return json.loads((out / "predictions.json").read_text())


def test_clips_of_every_kind_and_bad_ones_beside_them(script, run, clips, capsys):
    good = ["talk.mp4", "frames", "frames/img1.jpg,frames/img8.jpg"]
    bad = [
        "walls",
        "empty",
        "broken.mp4",
        "missing.mp4",
        "frames/img1.jpg",
        "frames/img1.jpg,frames/img99.jpg",
    ]
    paths = [",".join(str(clips / part) for part in text.split(",")) for text in good + bad]
    out = clips / "out"
    assert script["main"]([f"--run={run}", *paths, f"--out={out}"]) == 1
    shown = capsys.readouterr().out
    found = written(out)

    assert [e["clip"] for e in found["clips"]] == ["talk", "frames", "img1-img8"]
    for entry in found["clips"][:2]:
        assert 2 <= entry["onset"] <= 4
        assert 6 <= entry["apex"] <= 8
        assert entry["frames"] == len(FRAMES)
    _, folder, pair = found["clips"]
    assert (pair["onset"], pair["apex"]) == (0, 1)
    assert [pathlib.Path(pair[k]).name for k in ("onset_file", "apex_file")] == [
        "img1.jpg",
        "img8.jpg",
    ]
    assert folder["apex_file"] == f"img{folder['apex'] + 1}.jpg"
    assert (found["models"], found["subjects"], found["n"]) == (3, 3, 12)
    assert [entry["fps"] for entry in found["clips"]] == [25, None, None]
    assert found["clips"][0]["apex_ms"] == 40 * found["clips"][0]["apex"]
    assert folder["apex_ms"] is None
    assert "talk: onset spotted, apex spotted within 500 ms, at 25 frames a second" in shown
    assert "frames: onset spotted, apex spotted in the whole part" in shown
    assert "chance is 0.20" in shown
    for entry in found["clips"]:
        assert sum(p["mean"] for p in entry["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert entry["prediction"] == max(
            entry["probabilities"], key=lambda c: entry["probabilities"][c]["mean"]
        )
        assert sum(entry["votes"].values()) == 3
        picture = cv2.imread(str(out / entry["picture"]))
        assert picture.shape[0] > 400
        assert picture.std() > 10

    reasons = [(failed["id"], failed["reason"]) for failed in found["failed"]]
    expected = {
        "walls": "no usable face",
        "empty": "without images",
        "broken": "decode",
        "missing": "no such file",
    }
    expected |= {"img1.jpg": "a single image", "img99": "no such file"}
    assert len(reasons) == len(expected)
    for name, words in expected.items():
        assert any(name in clip and words in reason for clip, reason in reasons), (name, reasons)
        assert name in shown
    assert "lie detector" in shown
    assert "3 subjects" in shown

    read = finished.read_finetuned(run)
    members = list(finished.saved_members(read))
    onset, apex = (
        cv2.cvtColor(cv2.imread(str(clips / "frames" / f"img{k}.jpg")), cv2.COLOR_BGR2RGB)
        for k in (1, 8)
    )
    [box] = {
        each.box
        for each in extract.extract([own_clips.item_of(paths[2])], cache=str(clips / "c"))[0].clips
    }
    pair_of_faces = np.stack([frames.crop(image, box, 64) for image in (onset, apex)])[None]
    data = {"frames": jnp.asarray(pair_of_faces), "label": jnp.zeros(1, jnp.int32)}
    one = jax.jit(finetuning.predict, static_argnums=0)
    each = [
        one(read.config, finetuning.MemberState(0, params, stats, None), data, np.zeros(1, int))[0]
        for _, params, stats in members
    ]
    each = calibration.cooled(np.array(each), inference.temperature_of(read))
    for k, name in enumerate(read.classes):
        assert pair["probabilities"][name]["mean"] == pytest.approx(np.mean(each, 0)[k], abs=1e-5)
        assert pair["probabilities"][name]["std"] == pytest.approx(
            np.std(each, 0, ddof=1)[k], abs=1e-5
        )


def test_given_onset_and_apex_and_frames_that_are_crops(script, run, clips):
    out = clips / "out"
    command = [
        f"--run={run}",
        str(clips / "walls"),
        "--cropped",
        f"--out={out}",
    ]  # no face in it: taken as it is
    assert script["main"]([*command, "--onset=1", "--apex=3"]) == 0
    [entry] = written(out)["clips"]
    assert (entry["onset"], entry["apex"]) == (1, 3)
    assert script["main"]([*command, "--onset=2"]) == 0
    [entry] = written(out)["clips"]
    assert entry["onset"] == 2
    assert script["main"]([*command, "--onset=2", "--apex=9"]) == 1
    [failed] = written(out)["failed"]
    assert "frames holds frame 2 and 9" in failed["reason"]
    assert script["main"]([*command, "--apex=40"]) == 1
    [failed] = written(out)["failed"]
    assert "holds frame 40" in failed["reason"]


def test_parts_of_a_cut_video_are_predicted_each_and_found_by_frame(script, run, clips):
    """Two people, one after the other: frames are counted in the whole video."""
    other = [
        drawn.face(120, 110, 120, mouth=m, wall=(30, 60, 20)) for m in (0, 0, 0, 0.6, 1, 1, 1, 1)
    ]
    drawn.video(clips / "cut.mp4", FRAMES + other)
    command = [f"--run={run}", str(clips / "cut.mp4"), f"--out={clips / 'out'}"]
    assert script["main"](command) == 0
    first, second = written(clips / "out")["clips"]
    assert (first["clip"], second["clip"]) == ("cut#1", "cut#2")
    assert first["apex"] < 10 <= second["onset"] < second["apex"] < 18
    assert second["apex_file"] == f"{second['apex']:06d}.jpg"
    assert {"cut-1.png", "cut-2.png"} <= {p.name for p in (clips / "out").iterdir()}
    assert script["main"]([*command, "--onset=11", "--apex=15"]) == 0
    [entry] = written(clips / "out")["clips"]
    assert (entry["clip"], entry["onset"], entry["apex"]) == ("cut#2", 11, 15)
    assert script["main"]([*command, "--onset=5", "--apex=15"]) == 1, "a cut lies between them"
    assert "18 frames holds frame 5 and 15" in written(clips / "out")["failed"][0]["reason"]


def test_several_short_expressions_are_candidates_in_order_of_strength(script, run, clips, capsys):
    """Twice the mouth opens for .4 s in 3 s of rest, the second time twice as wide."""
    opening = np.interp(np.arange(75), [0, 9, 14, 19, 49, 54, 59], [0, 0, 0.4, 0, 0, 0.8, 0])
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 2, FRAMES[0].shape) for _ in opening]
    shown = [
        np.clip(drawn.face(160, 120, 110, mouth=m) + n, 0, 255).astype(np.uint8)
        for m, n in zip(opening, noise, strict=True)
    ]
    drawn.video(clips / "two.mp4", shown)
    command = [f"--run={run}", str(clips / "two.mp4"), f"--out={clips / 'out'}"]
    assert script["main"](command) == 0
    [best] = written(clips / "out")["clips"]
    assert script["main"]([*command, "--all"]) == 0
    first, second, *rest = written(clips / "out")["clips"]
    assert first == best
    for entry, apex in ((first, 54), (second, 14)):
        assert abs(entry["apex"] - apex) <= 1
        assert 0 < entry["apex_ms"] - entry["onset_ms"] <= 500
        assert entry["verdict"] != inference.NOTHING
    assert {entry["verdict"] for entry in rest} <= {inference.NOTHING}
    strip = cv2.imread(str(clips / "out" / "two-over-time.png"))
    assert strip.std() > 10
    assert script["main"]([*command, "--fps=50", "--longest=0.1", "--apex=54"]) == 0
    [entry] = written(clips / "out")["clips"]
    assert entry["fps"] == 50
    assert 54 - 5 <= entry["onset"] < entry["apex"] == 54


def answer(probabilities, classes=("a", "b"), **known):
    """Of models with these probabilities, about a part whose head is still unless it is `known`."""
    fields = {
        "clip": Clip("c", (), fps=25.0),
        "first": 0,
        "frames": np.zeros((9, 8, 8, 3), np.uint8),
        "spotted": Spotted(0, 4, np.zeros(9), 5.0),
        "how": "",
        "head": head.Motion(0.001, 0, 0, 0, 0.9),
        "item": "c",
        "longest": 12,
        "searched": True,
    }
    return inference.Answer(
        own_clips.ClipPart(**fields | known), classes, np.array(probabilities, np.float32), {}
    )


def test_a_verdict_is_a_class_only_where_there_is_no_doubt():
    sure = [[0.9, 0.1], [0.8, 0.2]]
    assert answer(sure).verdict == "a"
    assert answer(sure).doubt == ""
    split = answer([[0.9, 0.1], [0.2, 0.8]])
    assert split.verdict == inference.UNDECIDED
    assert split.doubt == "a 0.55 and b 0.45, their difference ± 0.99 over the models"
    assert answer([[0.52, 0.48]] * 2).verdict == inference.UNDECIDED

    walking, still = head.Motion(0.05, 0, 0, 0, 0.9), Spotted(0, 4, np.zeros(9), 1.2)
    assert answer(sure, head=walking).verdict == inference.NOTHING
    assert "5%" in answer(sure, head=walking).doubt
    assert answer(sure, head=walking._replace(share=0.3)).verdict == "a"
    assert answer(sure, spotted=still).verdict == inference.NOTHING
    assert "stand out" in answer(sure, spotted=still).doubt
    busy = Spotted(0, 4, np.zeros(9), 1.8)
    assert answer(sure, spotted=busy).verdict == "a"
    assert answer(sure, spotted=busy, longest=5).verdict == inference.NOTHING
    chosen = answer(sure, head=walking, spotted=still, searched=False)
    assert chosen.verdict == "a"  # a person says where it is


def test_the_spread_is_that_of_the_difference():
    """With two classes what one wins the other loses, so the difference has twice its spread."""
    two = answer([[0.9, 0.1], [0.5, 0.5]])  # .4 ahead, ± .57; the first class ± .28
    assert two.verdict == inference.UNDECIDED
    assert two.doubt == "a 0.70 and b 0.30, their difference ± 0.57 over the models"
    # Others take from both alike: the first is ± .21, and yet .2 ahead in either model.
    four = answer([[0.6, 0.4, 0.0, 0.0], [0.3, 0.1, 0.3, 0.3]], classes=("a", "b", "c", "d"))
    assert four.verdict == "a"
    assert answer([[0.6, 0.4]]).verdict == "a", "of a single model"


def test_of_one_class_there_is_nothing_to_decide():
    alone = answer([[1.0], [1.0]], classes=("a",))
    assert alone.verdict == inference.UNDECIDED
    assert "alone" in alone.doubt


def test_clips_of_one_name_keep_their_pictures_apart(clips):
    drawn.image_folder(clips / "b" / "frames", FRAMES[:2])
    items, failed = own_clips.items_of([str(clips / "frames"), str(clips / "b" / "frames")])
    assert [item.id for item in items] == ["frames", "frames-2"]
    assert not failed
    taken = {"cut-1"}
    assert [own_clips.untaken("cut-1", taken) for _ in range(2)] == ["cut-1-2", "cut-1-3"]


def test_pictures_of_long_names_have_short_names_of_their_own(script, run, clips):
    """Two names of 50 Chinese characters are 301 bytes together; a file's name has 255."""
    names = [f"{'静' * 50}{end}" for end in "ab"]
    for name, image in zip(names, FRAMES[::8], strict=True):
        (clips / f"{name}.jpg").write_bytes(drawn.jpeg(image))
    first, second = (str(clips / f"{name}.jpg") for name in names)
    pairs = [f"{first},{second}", f"{second},{first}"]
    out = clips / "out"
    assert script["main"]([f"--run={run}", *pairs, f"--out={out}"]) == 0
    entries = written(out)["clips"]
    assert [entry["clip"] for entry in entries] == ["-".join(names), "-".join(names[::-1])]
    pictures = [entry["picture"] for entry in entries]
    assert len(set(pictures)) == 2
    assert all((out / name).is_file() for name in pictures)
    assert len(script["default_name"](pairs[0]).encode()) < 150


def test_predictions_do_not_depend_on_pictures(script, run, clips, monkeypatch, capsys):
    def draw(path, answer):
        assert (path.parent / "predictions.json").is_file()
        if answer.part.clip.id == "talk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.touch()

    monkeypatch.setattr(inference, "draw", draw)
    out = clips / "out"
    clip_paths = [str(clips / name) for name in ("talk.mp4", "frames")]
    assert script["main"]([f"--run={run}", *clip_paths, f"--out={out}"]) == 1
    assert "no picture talk.png: No space left on device" in capsys.readouterr().out
    assert [entry["clip"] for entry in written(out)["clips"]] == ["talk", "frames"]
    assert (out / "frames.png").is_file()


def test_a_name_that_looks_like_mathematics_is_a_name(script, run, clips):
    (clips / "frames").rename(clips / r"$\frac$x_1^")
    out = clips / "out"
    assert script["main"]([f"--run={run}", str(clips / r"$\frac$x_1^"), f"--out={out}"]) == 0
    assert len(list(out.glob("*.png"))) == 1


def test_predictions_lie_in_a_folder_called_after_the_clip(script, tmp_path):
    (tmp_path / "clip.01").mkdir()
    (tmp_path / "a,b.mp4").touch()
    named = {"clip.01": "clip.01", "a,b.mp4": "a,b", "on.jpg,off.jpg": "on", "video.mp4": "video"}
    assert {name: script["default_name"](str(tmp_path / name)) for name in named} == named


def test_a_clip_of_a_fast_camera_is_one_clip(clips):
    """140 frames: a folder is one clip, and so is a video of less than five seconds, or one of
    which the onset or apex is given."""
    many = [FRAMES[i * len(FRAMES) // 140] for i in range(140)]
    drawn.image_folder(clips / "many", many)
    drawn.video(clips / "fast.avi", many, "MJPG", fps=200)
    drawn.video(clips / "slow.avi", many, "MJPG", fps=25)

    def parts(name, **given):
        item = own_clips.item_of(str(clips / name), **given)
        found = extract.extract([item], cache=str(clips / "c"), size=64)[0]
        return [len(clip.frames) for clip in found.clips]

    assert parts("many") == parts("fast.avi") == parts("slow.avi", whole=True) == [140]
    assert parts("slow.avi") == [70, 70]


def test_onset_and_apex_of_two_images_are_never_taken_for_a_cut(script, run, clips):
    rng = np.random.default_rng(0)
    drawn.image_folder(
        clips / "unlike", [rng.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(2)]
    )
    pair = ",".join(str(path) for path in sorted((clips / "unlike").iterdir()))
    assert script["main"]([f"--run={run}", pair, "--cropped", f"--out={clips / 'out'}"]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--run={}/missing", "{}/talk.mp4"], ["missing", "No such file"]),
        (["--run={run}", "{}/talk.mp4", "{}/frames", "--onset=3"], ["--onset", "one clip"]),
        (["--run={run}", "{}/talk.mp4", "--onset=3", "--apex=3"], ["--apex=3", "after"]),
        (["--run={run}", "{}/talk.mp4", "--detector=yunet"], ["--detector-model"]),
        (["--run={run}", "{}/frames/0.png,{}/frames/1.png", "--onset=0"], ["--onset", "already"]),
        (["--run={run}", "{}/talk.mp4", "--out={}/broken.mp4"], ["--out", "cannot be made"]),
    ],
)
def test_bad_flags_are_refused_before_any_work(script, run, clips, flags, words):
    with pytest.raises(UserError) as refused:
        script["main"]([flag.format(clips, clips, run=run) for flag in flags])
    message = refused.value.spelled(cli.spell)
    assert all(word in message for word in words), message


def test_the_python_example_of_the_readme(run, clips, capsys):
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(import ma2mi_jax\n.*?)```", text, re.DOTALL)[1]
    assert len(code.splitlines()) <= 10
    code = code.replace("runs/casme2-from-ferv39k-paper-0", str(run))
    names = {}
    exec(code.replace("video.mp4", str(clips / "talk.mp4")), names)
    assert len(names["answers"]) == 1
    assert not names["failed"]
    assert names["answers"][0].prediction in capsys.readouterr().out
    assert names["c_delta"].shape == (3, 16)  # three folds; preset smoke has D = 2 x 8

    one = names["run"]
    members = list(finished.saved_members(one.run))
    pair = jnp.asarray(names["answers"][0].pair)[None]
    for (_, params, stats), own in zip(members, names["c_delta"], strict=True):
        logits = own @ params["classifier"]["kernel"] + params["classifier"]["bias"]
        found = gradcam.explain(one.run.config, params, stats, pair).probabilities[0]
        np.testing.assert_allclose(jax.nn.softmax(logits), found, rtol=1e-4)
