"""Prepared data: what comes out is what went in, whatever was killed, lost or damaged meanwhile;
and latents that stand for the VAE's."""

import dataclasses
import importlib
import json
import pathlib
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import commands
import cv2
import jax
import numpy as np
import pytest

from ma2mi_jax.clips.clip import Clip, Dataset, Repair, SetAside, fingerprint
from ma2mi_jax.clips.frames import (
    ArrayFrames,
    Box,
    FrameError,
    ImageFolder,
    StoreFrames,
    crop,
    read_frame,
    read_latents,
    read_record,
)
from ma2mi_jax.clips.pairs import load_pairs, pairs
from ma2mi_jax.datasets import prepared, registry
from ma2mi_jax.datasets.prepared import format
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.images import to_float
from ma2mi_jax.models import autoencoder
from ma2mi_jax.models.architecture import Architecture
from ma2mi_jax.models.weights import diffusers
from ma2mi_jax.training import pretraining

# the module; as an attribute of the package the name is the function of the same name
writing = importlib.import_module("ma2mi_jax.datasets.prepared.write")
SIZE = 32


def picture(clip, position, height=SIZE, width=SIZE):
    """Smooth, so that JPEG keeps it nearly, and different for each clip and position."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([255 * y, 255 * x, np.full_like(x, 12 * clip + 3 * position)], -1).astype(
        np.uint8
    )


def write_images(folder, clip, numbers, name="img{}.jpg", shape=(SIZE, SIZE)):
    folder.mkdir(parents=True)
    names = tuple(name.format(n) for n in numbers)
    for position, each in enumerate(names):
        cv2.imwrite(str(folder / each), picture(clip, position, *shape)[..., ::-1])
    return ImageFolder(str(folder), names)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(writing, "LEAST", 10)  # frames in a shard


@pytest.fixture
def source(tmp_path):
    """Six clips: ready JPEG files, larger ones with a face box, PNG files, an array."""
    root = tmp_path / "raw"
    np.save(tmp_path / "frames.npy", np.stack([picture(5, p) for p in range(9)]))
    annotated = {
        "subject": "sub01",
        "label": 1,
        "onset": 1,
        "apex": 3,
        "offset": 5,
        "fps": 200.0,
        "action_units": "L4+10A/B",
    }
    clips = (
        Clip("a", write_images(root / "a", 0, [46, 47, 48, 60, 61, 100]), **annotated),
        Clip(
            "b",
            write_images(root / "b", 1, range(1, 9), shape=(60, 80)),
            Box(-4, 10, 50),
            subject="sub02",
            label=0,
            onset=0,
            apex=4,
        ),
        Clip("c", write_images(root / "c", 2, range(1, 9), "006_{:05d}.png")),
        Clip("d", write_images(root / "d", 3, range(8), shape=(40, 40))),
        Clip("e", write_images(root / "e", 4, range(7))),
        Clip("f", ArrayFrames(str(tmp_path / "frames.npy"), 2, 7)),
    )
    return Dataset(
        "casme2",
        clips,
        ("x", "y"),
        (SetAside("z", "no frames"),),
        ("a note: 1",),
        "sheet.xlsx",
        (Repair("a", "apex", "is 3"),),
        "yunet:0123456789ab+eyes",
    )


def test_a_shard_is_read_again_only_if_it_may_have_changed(source, tmp_path, monkeypatch):
    prepare(source, tmp_path / "out")
    read = []
    hashed = format.sha256
    monkeypatch.setattr(format, "sha256", lambda path: read.append(path.name) or hashed(path))
    prepared.check_content(tmp_path / "out", tmp_path / "cache")
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.array_record"))
    assert sorted(read) == shards
    prepared.check_content(tmp_path / "out", tmp_path / "cache")
    assert sorted(read) == shards
    damage(tmp_path / "out" / shards[0], 200)
    with pytest.raises(UserError, match=shards[0]):
        prepared.check_content(tmp_path / "out", tmp_path / "cache")


def prepare(source, out, **options):
    prepared.write(source, "target", out, size=SIZE, **options)
    return prepared.read(out, source.name, "target")


def files(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def damage(path, offset=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if offset is None else offset] ^= 255
    path.write_bytes(content)


def test_records_and_pixels_come_back(source, tmp_path):
    found = prepare(source, tmp_path / "out")
    assert [f.name for f in dataclasses.fields(Dataset)] == [
        "name",
        "clips",
        "classes",
        "set_aside",
        "notes",
        "annotations",
        "repairs",
        "detector",
    ]
    for name in ("name", "classes", "set_aside", "notes", "annotations", "repairs", "detector"):
        assert getattr(found, name) == getattr(source, name)
    for before, after in zip(source.clips, found.clips, strict=True):
        assert dataclasses.replace(after, frames=before.frames, box=before.box) == before
        assert after.box is None
        assert len(after.frames) == len(before.frames)
        for i in range(len(before.frames)):
            expected = crop(read_frame(before.frames, i), before.box, SIZE)
            if before.id not in ("a", "e"):  # those are JPEG files of this size, kept byte by byte
                expected = cv2.imdecode(
                    cv2.imencode(".jpg", expected, (cv2.IMWRITE_JPEG_QUALITY, 95))[1],
                    cv2.IMREAD_COLOR,
                )
            difference = np.abs(read_frame(after.frames, i).astype(int) - expected)
            assert difference.max() <= (
                0 if before.id in ("a", "e") else 12
            )  # the order of the channels decides what JPEG loses
            assert difference.mean() < 2
    numbers = prepared.frame_numbers(tmp_path / "out")
    assert numbers["a"] == [46, 47, 48, 60, 61, 100]
    assert numbers["c"] == list(range(1, 9))
    assert numbers["f"] == list(range(7))
    with pytest.raises(IndexError):
        read_frame(found.clips[0].frames, 6)
    assert prepared.verify(tmp_path / "out") == []


def test_it_is_in_shards_and_each_has_its_count_and_checksum(source, tmp_path):
    prepare(source, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert len(manifest["shards"]) == 6  # of two clips each would be more than ten frames
    assert [shard["records"] for shard in manifest["shards"]] == [6, 8, 8, 8, 7, 7]
    assert manifest["counts"] == {"clips": 6, "frames": 44, "set_aside": 1, "frames_replaced": 0}
    assert all(len(shard["sha256"]) == 64 for shard in manifest["shards"])
    assert not list((tmp_path / "out").glob("*.part"))


def test_the_prepared_data_can_be_prepared_again(source, tmp_path):
    once = prepare(source, tmp_path / "once")
    twice = prepare(once, tmp_path / "twice")

    def frames(where):
        return {k: v for k, v in files(where).items() if k.endswith("array_record")}

    assert frames(tmp_path / "once") == frames(tmp_path / "twice")
    assert [c.id for c in once.clips] == [c.id for c in twice.clips]


def test_numbers_of_frames_stay_when_data_are_prepared_again(source, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    prepare(prepare(source, once), twice)
    assert prepared.frame_numbers(twice) == prepared.frame_numbers(once)
    assert prepared.frame_numbers(twice)["a"] == [46, 47, 48, 60, 61, 100]


def film(path, level, clips=2):
    """Clips of an even grey, as a film is drawn; the class of each is told by turns."""
    np.save(path, np.full((2 * clips, SIZE, SIZE, 3), level, np.uint8))
    drawn = (
        Clip(f"{i}", ArrayFrames(str(path), 2 * i, 2), label=(i + level) % 2) for i in range(clips)
    )
    return Dataset("synthetic", tuple(drawn), ("x", "y"))


def grey(dataset):
    sys.modules[StoreFrames.__module__]._opened.cache_clear()  # as in another process
    return [int(read_frame(clip.frames, 0)[0, 0, 0]) for clip in dataset.clips]


def test_other_drawn_faces_are_made_anew_and_the_same_are_kept(tmp_path):
    out = tmp_path / "out"
    for level in (20, 71):  # each film has a name of its own
        found = prepare(film(tmp_path / f"{level}.npy", level), out)
        assert grey(found) == [level, level]
        assert [clip.label for clip in found.clips] == [level % 2, 1 - level % 2]
    (shard,) = out.glob("frames-*.array_record")
    written = shard.stat().st_mtime_ns
    (tmp_path / "elsewhere").mkdir()
    prepare(film(tmp_path / "elsewhere" / "71.npy", 71), out)
    assert shard.stat().st_mtime_ns == written


def test_what_is_prepared_from_prepared_data_follows_them(tmp_path):
    raw, moved, out = tmp_path / "raw", tmp_path / "moved", tmp_path / "out"
    assert grey(prepare(prepare(film(tmp_path / "20.npy", 20), raw), out)) == [20, 20]
    (shard,) = out.glob("frames-*.array_record")
    written = shard.stat().st_mtime_ns
    raw.rename(moved)
    prepare(prepared.read(moved, "synthetic", "target"), out)
    assert shard.stat().st_mtime_ns == written
    moved_anew = prepare(film(tmp_path / "71.npy", 71), tmp_path / "anew")
    assert grey(prepare(moved_anew, out)) == [71, 71]


def test_the_content_of_prepared_data_is_known_wherever_they_lie(tmp_path):
    def of(root):
        return prepared.content_of(prepared.read(root, "synthetic", "target").clips)

    a, b = film(tmp_path / "20.npy", 20), film(tmp_path / "70.npy", 70)
    prepare(a, tmp_path / "a")
    before = of(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "moved")
    prepare(b, tmp_path / "a")
    assert of(tmp_path / "moved") == before != of(tmp_path / "a")
    clips = [prepared.read(tmp_path / name, "synthetic", "target").clips for name in ("a", "moved")]
    assert fingerprint(clips[0]) == fingerprint(clips[1])  # which does not tell
    assert prepared.content_of(a.clips) == ""
    both = [(*clips[0][:1], *clips[1][1:]), clips[0]]
    assert prepared.content_of(both[0]) != prepared.content_of(both[1])


def test_an_unreadable_frame_is_replaced_counted_and_listed(source, tmp_path):
    folders = {clip.id: pathlib.Path(clip.frames.folder) for clip in source.clips[:5]}
    (folders["a"] / "img48.jpg").write_bytes(b"no image")
    (folders["b"] / "img1.jpg").write_bytes(b"")
    (folders["b"] / "img2.jpg").unlink()
    for image in folders["d"].iterdir():
        image.write_bytes(b"no image")
    found = prepare(source, tmp_path / "out")
    assert [clip.id for clip in found.clips] == ["a", "b", "c", "e", "f"]
    by_id = {clip.id: clip for clip in found.clips}
    np.testing.assert_array_equal(
        read_frame(by_id["a"].frames, 2), read_frame(by_id["a"].frames, 1)
    )
    np.testing.assert_array_equal(
        read_frame(by_id["b"].frames, 0), read_frame(by_id["b"].frames, 2)
    )
    assert [(r.id, r.what) for r in found.repairs if r.kind == writing.STAND_IN] == [
        ("a", "frame 2 shows frame 1"),
        ("b", "frame 0 shows frame 2"),
        ("b", "frame 1 shows frame 2"),
    ]
    assert f"{writing.STAND_IN}: 3" in found.notes
    assert [s.id for s in found.set_aside] == ["d", "z"]
    assert "no frame can be read" in found.set_aside[0].reason
    assert prepared.frame_numbers(tmp_path / "out")["e"] == list(
        range(7)
    )  # the clips after a lost one keep theirs
    np.testing.assert_array_equal(
        read_frame(by_id["e"].frames, 0), read_frame(source.clips[4].frames, 0)
    )


def test_a_source_without_a_readable_frame_is_refused(tmp_path):
    frames = write_images(tmp_path / "raw", 0, [1, 2])
    for image in (tmp_path / "raw").iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(UserError, match="not one of its 1 clips"):
        prepared.write(
            Dataset("casme2", (Clip("a", frames),)), "target", tmp_path / "out", size=SIZE
        )


def test_work_that_was_stopped_goes_on_with_what_is_not_done(source, tmp_path):
    class Killed(BaseException):
        pass

    def kill(done, total):
        assert total == 44
        if done > 20:
            raise Killed

    with pytest.raises(Killed):
        prepared.write(source, "target", tmp_path / "out", size=SIZE, workers=1, progress=kill)
    assert not prepared.is_prepared(tmp_path / "out")
    kept = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("frames-*.array_record")
    }
    assert len(kept) == 2
    seen = []
    prepared.write(
        source,
        "target",
        tmp_path / "out",
        size=SIZE,
        workers=1,
        progress=lambda done, total: seen.append(done),
    )
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert seen[-1] == 44
    prepare(source, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_shard_that_was_killed_before_its_record_is_made_again(source, tmp_path, overwrite):
    out = tmp_path / "out"
    prepare(source, out)
    before = files(out)
    for record in out.glob("*.json"):
        record.unlink()
    (out / "frames-00004.array_record").rename(out / "frames-00004.array_record.part")
    prepare(source, out, overwrite=overwrite)
    assert files(out) == before


@pytest.mark.parametrize("fault", ["missing", "cut", "flipped"])
def test_a_damaged_shard_is_named_and_mended_alone(source, tmp_path, fault):
    out = tmp_path / "out"
    prepare(source, out)
    before = files(out)
    shard = out / "frames-00002.array_record"
    match fault:
        case "missing":
            shard.unlink()
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-1000])
        case "flipped":
            damage(shard, 200)
    (line,) = prepared.verify(out)
    assert "frames-00002.array_record" in line
    assert "run the command that prepared" in line
    assert "\n" not in line
    if fault == "flipped":
        assert prepared.read(out, "casme2", "target")  # only its checksum tells
        with pytest.raises(UserError, match=r"frames-00002.array_record: its content is not what"):
            prepared.check_content(out, tmp_path / "cache")
        shard.unlink()
    else:
        with pytest.raises(
            UserError,
            match=r"frames-00002.array_record: this shard (is missing|has \d+ bytes, expected "
            r"\d+); delete",
        ):
            prepared.read(out, "casme2", "target")
    others = {
        path: path.stat().st_mtime_ns for path in out.glob("frames-*.array_record") if path != shard
    }
    prepare(source, out)
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert files(out) == before
    assert prepared.verify(out) == []


def test_a_damaged_record_costs_one_frame_of_a_run_and_no_more(source, tmp_path):
    found = prepare(source, tmp_path / "out")
    frames = found.clips[2].frames
    path, record = pathlib.Path(frames.path), read_record(frames, 3)
    damage(path, path.read_bytes().index(record) + len(record) // 2)
    moved = dataclasses.replace(
        frames, path=str(path.rename(path.with_suffix(".moved")))
    )  # not the one that is open
    with pytest.raises(FrameError, match="record 3 cannot be read"):
        read_frame(moved, 3)
    clip = dataclasses.replace(found.clips[2], frames=moved, onset=3, apex=6)
    images, replaced = load_pairs([clip], SIZE)
    assert replaced == [0]
    np.testing.assert_array_equal(images[0, 0], read_frame(moved, 2))


def test_a_changed_dataset_is_prepared_where_it_changed(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("frames-*.array_record")}
    fewer = dataclasses.replace(
        source, clips=(dataclasses.replace(source.clips[0], label=0), *source.clips[1:4])
    )
    found = prepare(fewer, out)
    assert [clip.id for clip in found.clips] == ["a", "b", "c", "d"]
    assert found.clips[0].label == 0
    assert {
        path.name: path.stat().st_mtime_ns for path in out.glob("frames-*.array_record")
    } == dict(sorted(times.items())[:4])
    moved_box = dataclasses.replace(
        fewer,
        clips=(
            fewer.clips[0],
            dataclasses.replace(fewer.clips[1], box=Box(0, 0, 60)),
            *fewer.clips[2:],
        ),
    )
    prepare(moved_box, out)
    assert (out / "frames-00001.array_record").stat().st_mtime_ns != times[
        "frames-00001.array_record"
    ]
    assert (out / "frames-00000.array_record").stat().st_mtime_ns == times[
        "frames-00000.array_record"
    ]


def test_other_data_are_not_overwritten_unless_told(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    for other, asked in (
        (source, {"size": 16}),
        (dataclasses.replace(source, name="samm"), {"size": SIZE}),
    ):
        with pytest.raises(UserError, match=r"^out=.*other prepared data.*overwrite"):
            prepared.write(other, "target", out, **asked)
    with pytest.raises(UserError, match="kind target there, source asked"):
        prepared.write(source, "source", out, size=SIZE)
    prepared.write(source, "target", out, size=16, overwrite=True)
    assert read_frame(prepared.read(out, "casme2", "target").clips[0].frames, 0).shape == (
        16,
        16,
        3,
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"thesis.tex"):
            prepared.write(source, "target", tmp_path / "mine", size=SIZE, overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        prepared.write(source, "target", tmp_path / "file", size=SIZE)


def test_what_cannot_be_read_is_told_in_one_line(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    with pytest.raises(UserError, match=r"was prepared from target=casme2"):
        prepared.read(out, "samm", "target")
    with pytest.raises(UserError, match=r"was prepared from target=casme2"):
        prepared.read(out, "casme2", "source")
    with pytest.raises(UserError, match="no prepared data there"):
        prepared.verify(tmp_path)
    manifest = out / "prepared.json"
    text = manifest.read_text()
    format.write_record_file(manifest, json.loads(text) | {"format": 99})
    with pytest.raises(UserError, match="format 99"):
        prepared.read(out, "casme2", "target")
    manifest.write_text(text.replace('"annotations": "', '"annotations": "b'))  # one letter more
    with pytest.raises(UserError, match=r"prepared.json: its content is not what was written"):
        prepared.read(out, "casme2", "target")
    manifest.write_text(text[:100])
    with pytest.raises(UserError, match=r"prepared.json: cannot be read"):
        prepared.read(out, "casme2", "target")


def test_a_prepared_folder_is_a_data_root(source, tmp_path):
    micro, macro = tmp_path / "micro", tmp_path / "macro"
    prepare(source, micro)
    prepared.write(dataclasses.replace(source, name="ferv39k"), "source", macro, size=SIZE)

    def read(name, kind, root, **chosen):
        spec = DatasetSpec(name, kind, root=str(root), **chosen)
        return registry.read_dataset(spec, size=SIZE, cache=tmp_path / "cache")

    assert read("casme2", "target", micro).annotations == "sheet.xlsx"
    for name in ("ferv39k", "folder"):
        assert isinstance(read(name, "source", macro).clips[0].frames, StoreFrames)
    with pytest.raises(UserError, match="source=ferv39k"):
        read("dfew", "source", macro)
    with pytest.raises(UserError, match=r"^split=train: .* holds prepared data, .*; remove it"):
        read("ferv39k", "source", macro, split="train")
    with pytest.raises(
        UserError, match=r"^annotations=other.xlsx: .* holds prepared data, .*; remove it"
    ):
        read("casme2", "target", micro, annotations="other.xlsx")


def test_processes_and_threads_read_alike(source, tmp_path):
    clips = prepare(source, tmp_path / "out").clips
    assert pickle.loads(pickle.dumps(clips)) == clips
    assert len(pickle.dumps(clips[0].frames)) < 400
    expected = [[read_frame(clip.frames, i) for i in range(len(clip.frames))] for clip in clips]
    start = threading.Barrier(8)

    def read_all(_):
        start.wait()
        return [[read_frame(clip.frames, i) for i in range(len(clip.frames))] for clip in clips]

    store_readers = sys.modules[StoreFrames.__module__]._opened
    store_readers.cache_clear()  # so that all threads open the shards at once
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(read_all, range(8)):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
    batches = []
    for workers in (0, 1):
        iterator = iter(pairs(clips, image_size=SIZE, batch_size=4, seed=3, workers=workers))
        batches.append([next(iterator) for _ in range(3)])
        iterator.close()
    for a, b in zip(*batches, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


# ------------------------------------------------------------------------------------------ latents


def means(frames):
    """Stands for an autoencoder: 4 numbers for each 8 × 8 block, exact in float16."""
    blocks = frames.reshape(len(frames), SIZE // 8, 8, SIZE // 8, 8, 3).mean((2, 4))
    return np.concatenate([blocks, blocks[..., :1]], -1).round()


def test_latents_are_those_of_the_frames_beside_them(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    seen = []
    prepared.add_latents(
        out, means, autoencoder="abc", vae="here", batch_size=3, progress=lambda *n: seen.append(n)
    )
    assert seen[-1] == (44, 44)
    clips = prepared.read(out, "casme2", "target").clips
    for clip in clips:
        for i in range(len(clip.frames)):
            z = read_latents(clip.frames, i)
            assert (z.shape, z.dtype) == ((SIZE // 8, SIZE // 8, 4), np.float16)
            np.testing.assert_array_equal(z, means(read_frame(clip.frames, i)[None])[0])
    iterator = iter(pairs(clips, image_size=SIZE, batch_size=4, seed=0, latents=True))
    for batch in (next(iterator) for _ in range(5)):
        assert (batch["latents"].shape, batch["latents"].dtype) == (
            (4, 2, SIZE // 8, SIZE // 8, 4),
            np.float16,
        )
        for slot in range(2):
            np.testing.assert_array_equal(
                batch["latents"][:, slot], means(batch["frames"][:, slot])
            )
    iterator.close()
    assert prepared.verify(out) == []
    damage(out / "latents-00001.npy")
    assert ["latents-00001.npy" in line for line in prepared.verify(out)] == [True]


def test_latents_of_a_stand_in_are_the_stand_ins(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    prepared.add_latents(out, means, autoencoder="abc", vae="here", batch_size=8)
    clip = prepared.read(out, "casme2", "target").clips[1]
    path = pathlib.Path(clip.frames.path)
    for position in range(1, len(clip.frames), 2):
        record = read_record(clip.frames, position)
        damage(path, path.read_bytes().index(record) + len(record) // 2)
    frames = dataclasses.replace(clip.frames, path=str(path.rename(path.with_suffix(".moved"))))
    iterator = iter(
        pairs(
            [dataclasses.replace(clip, frames=frames)],
            image_size=SIZE,
            batch_size=16,
            seed=0,
            latents=True,
        )
    )
    batch = next(iterator)
    iterator.close()
    assert batch["replaced"].any()
    for slot in range(2):
        np.testing.assert_array_equal(batch["latents"][:, slot], means(batch["frames"][:, slot]))


def test_latents_go_on_where_they_were_stopped_and_follow_their_frames(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    calls = []

    def stops(frames):
        calls.append(len(frames))
        if len(calls) > 3:
            raise KeyboardInterrupt
        return means(frames)

    with pytest.raises(KeyboardInterrupt):
        prepared.add_latents(out, stops, autoencoder="abc", vae="here", batch_size=4)
    assert (
        prepared.read(out, "casme2", "target").clips[0].frames.latents == ""
    )  # half of them are none
    calls.clear()
    counts = lambda frames: calls.append(len(frames)) or means(frames)  # noqa: E731
    prepared.add_latents(out, counts, autoencoder="abc", vae="here", batch_size=4)
    assert len(calls) == 10  # the first shard's two batches are done
    calls.clear()
    prepared.add_latents(out, counts, autoencoder="abc", vae="here", batch_size=4)
    assert not calls
    moved_box = dataclasses.replace(
        source,
        clips=(
            source.clips[0],
            dataclasses.replace(source.clips[1], box=Box(0, 0, 60)),
            *source.clips[2:],
        ),
    )
    prepared.write(moved_box, "target", out, size=SIZE)
    assert (
        not prepared.read(out, "casme2", "target").clips[0].frames.latents
    )  # of other frames: no more of use
    prepared.add_latents(out, counts, autoencoder="abc", vae="here", batch_size=4)
    assert len(calls) == 2
    frames = prepared.read(out, "casme2", "target").clips[1].frames
    np.testing.assert_array_equal(read_latents(frames, 0), means(read_frame(frames, 0)[None])[0])


def test_a_shard_without_a_readable_frame_has_latents_of_none(source, tmp_path):
    out = tmp_path / "out"
    for image in pathlib.Path(source.clips[3].frames.folder).iterdir():
        image.write_bytes(b"no image")
    prepare(source, out)
    assert json.loads((out / "frames-00003.json").read_text())["records"] == 0
    prepared.add_latents(out, means, autoencoder="abc", vae="here", batch_size=4)
    assert prepared.verify(out) == []
    clips = prepared.read(out, "casme2", "target").clips
    assert [clip.id for clip in clips] == ["a", "b", "c", "e", "f"]
    for frames in (clip.frames for clip in clips):
        expected = means(read_frame(frames, 1)[None])[0]
        np.testing.assert_array_equal(read_latents(frames, 1), expected)


def test_latents_of_other_weights_or_sizes_are_refused(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out)
    clips = prepared.read(out, "casme2", "target").clips
    assert not prepared.cached_latents(clips, "abc", SIZE)
    assert not prepared.cached_latents(source.clips, "abc", SIZE)
    prepared.add_latents(out, means, autoencoder="abc", vae="sd-vae-ft-mse", batch_size=8)
    clips = prepared.read(out, "casme2", "target").clips
    assert prepared.cached_latents(clips, "abc", SIZE)
    with pytest.raises(
        UserError,
        match=r"made by weights abc \(sd-vae-ft-mse\), vae gives def; .*cached_latents=false",
    ):
        prepared.cached_latents(clips, "def", SIZE)
    with pytest.raises(UserError, match=r"of 32-pixel frames, the run's preset has 96; .*size=96"):
        prepared.cached_latents(clips, "abc", 96)
    with pytest.raises(
        UserError,
        match=r"holds latents of weights abc, vae=other gives def; delete its latents\*",
    ):
        prepared.add_latents(out, means, autoencoder="def", vae="other", batch_size=8)
    (out / "latents-00003.npy").unlink()
    with pytest.raises(
        UserError, match=r"latents-00003.npy: this shard is missing.*with its latents"
    ):
        prepared.read(out, "casme2", "target")


def test_latents_that_no_float16_holds_are_refused(source, tmp_path):
    prepare(source, tmp_path / "out")
    with (
        pytest.warns(RuntimeWarning, match="overflow"),
        pytest.raises(UserError, match="no float16"),
    ):
        prepared.add_latents(
            tmp_path / "out",
            lambda frames: 1e6 * means(frames),
            autoencoder="abc",
            vae="here",
            batch_size=8,
        )


def random_vae(seed):
    return jax.jit(autoencoder.init, static_argnums=1)(jax.random.key(seed), autoencoder.TINY)


def test_the_loss_with_cached_latents_is_the_loss_with_the_autoencoder(tmp_path, monkeypatch):
    rng, size = np.random.default_rng(0), 64
    film = (
        np.kron(rng.uniform(0, 255, (4, 6, 8, 8, 3)), np.ones((1, 1, 8, 8, 1)))
        .astype(np.uint8)
        .reshape(24, size, size, 3)
    )
    np.save(tmp_path / "film.npy", film)
    clips = tuple(Clip(f"{i}", ArrayFrames(str(tmp_path / "film.npy"), 6 * i, 6)) for i in range(4))
    prepared.write(Dataset("folder", clips), "source", tmp_path / "out", size=size)
    params = random_vae(0)
    encode = jax.jit(lambda frames: autoencoder.encode(autoencoder.TINY, params, to_float(frames)))
    prepared.add_latents(
        tmp_path / "out",
        encode,
        autoencoder=autoencoder.fingerprint(params),
        vae="tiny",
        batch_size=8,
    )
    clips = prepared.read(tmp_path / "out", "folder", "source").clips
    assert prepared.cached_latents(clips, autoencoder.fingerprint(params), size)
    iterator = iter(pairs(clips, image_size=size, batch_size=4, seed=0, latents=True))
    batch = next(iterator)
    iterator.close()

    small = Architecture(
        image_size=size, width=4, depth=1, dit_width=16, heads=2, space="latent", blocks=(1, 1)
    )
    config = pretraining.Config(small, steps=10, batch_size=4, vae=autoencoder.TINY)
    state = jax.jit(partial(pretraining.init, config))(jax.random.key(0))
    plain, keys = {"frames": batch["frames"]}, jax.random.split(jax.random.key(0), 4)
    _, (_, metrics, _) = jax.jit(partial(pretraining.ma2mi_loss, config))(
        state.params, state.batch_stats, plain, keys, params
    )

    def never(*_, **__):
        raise AssertionError("the autoencoder was run")

    monkeypatch.setattr(autoencoder, "encode", never)
    loss = jax.jit(partial(pretraining.ma2mi_loss, config))
    _, (_, cached, _) = loss(
        state.params, state.batch_stats, {**plain, "latents": batch["latents"]}, keys
    )
    for name in metrics:
        np.testing.assert_allclose(cached[name], metrics[name], rtol=2e-3, atol=1e-5, err_msg=name)
    assert float(metrics["copy_baseline"]) > 0.01  # there is something to be equal
    with pytest.raises(AssertionError, match="was run"):
        loss(state.params, state.batch_stats, plain, keys, params)


# ------------------------------------------------------------------------------------- the commands


def test_prepare_then_pretrain_from_it(tmp_path):
    diffusers.save(tmp_path / "vae", autoencoder.TINY, random_vae(0))
    diffusers.save(tmp_path / "other", autoencoder.TINY, random_vae(1))
    environment = commands.one_device()

    def command(script, *flags, check=0):
        done = commands.run(script, *flags, environment=environment)
        assert done.returncode == check, done.stderr[-3000:]
        return done

    out = tmp_path / "out"
    data = ["--source=synthetic", "--clips=6"]
    latents = ["--latents", f"--vae={tmp_path / 'vae'}", "--batch-size=16"]
    done = command("prepare", *data, "--size=64", f"--out={out}")
    assert "144 of 64 x 64" in done.stdout
    command(
        "prepare", "--source=synthetic", f"--data-root={out}", f"--out={out}", "--size=64", *latents
    )  # latents are added later
    assert (
        "every shard is as it was written" in command("prepare", f"--out={out}", "--verify").stdout
    )
    flags = [
        "--preset=smoke",
        "--batch-size=4",
        "--steps=2",
        "--log-every=1",
        "--source=synthetic",
        f"--data-root={out}",
    ]
    done = command("pretrain", *flags, f"--vae={tmp_path / 'vae'}", f"--run={tmp_path / 'first'}")
    assert "latents: from the prepared data" in done.stderr
    resolved = json.loads((tmp_path / "first" / "config.json").read_text())["resolved"]
    clips = prepared.read(out, "synthetic", "source").clips
    assert resolved["prepared"] == prepared.content_of(clips)
    losses = [
        json.loads(line)["loss_rec"]
        for line in (tmp_path / "first" / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    refused = command(
        "pretrain", *flags, f"--vae={tmp_path / 'other'}", f"--run={tmp_path / 'run'}", check=2
    )
    assert "were made by weights" in refused.stderr
    assert not (tmp_path / "run").exists()
    damage(out / "frames-00000.array_record", 300)
    assert "1 damaged shards" in command("prepare", f"--out={out}", "--verify", check=1).stdout
