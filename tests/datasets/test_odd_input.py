"""Whatever a file holds, its reader answers within bounds or refuses it in one line."""

import contextlib
import json
import os
import string
import zipfile

import drawn
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from ma2mi_jax import files
from ma2mi_jax.clips import frames, video
from ma2mi_jax.clips.frames import FrameError, Unreachable
from ma2mi_jax.datasets import prepared
from ma2mi_jax.datasets.common import frame_numbers, sheets
from ma2mi_jax.datasets.prepared import format
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import predictions
from ma2mi_jax.models.weights import diffusers, tensors
from ma2mi_jax.runs import log

few = settings(
    derandomize=True,
    database=None,
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
numbers = st.integers(-(10**6), 10**6)
refused = contextlib.suppress(UserError)


# ----- sheets -------------------------------------------------------------------------------------


@few
@given(st.binary(max_size=200) | st.text("a,;\t\"'\n\r\0ü", max_size=60).map(str.encode))
def test_any_text_is_a_rectangle_of_cells_or_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with refused:
        (page,) = sheets.pages(str(tmp_path / "a.csv")).values()
        assert len({len(row) for row in page}) <= 1


@few
@given(st.text(string.digits + ".-/", max_size=8) | st.just("9" * 5000))
def test_a_number_in_a_cell_is_one_that_counts_something(text):
    found = sheets.whole(text)
    assert found is None or 0 <= found < 10**sheets.DIGITS


@few
@given(
    st.lists(numbers, min_size=1, max_size=6, unique=True).map(sorted),
    *[st.none() | numbers] * 3,
    st.sampled_from([None, *frame_numbers.COUNTINGS]),
)
def test_any_numbers_of_a_row_are_positions_among_the_files(files, onset, apex, offset, counts):
    place = frame_numbers.locate(files, onset, apex, offset, counts=counts)
    assert 0 <= place.onset < len(files)
    assert 0 <= place.offset < len(files)
    assert -1 <= place.apex < len(files)


def book(path, **parts):
    """A zip file with these parts; `__` in a name stands for a slash."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in parts.items():
            out.writestr(name.replace("__", "/"), content)
    return str(path)


def test_a_book_that_would_fill_the_memory_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "MOST_BYTES", 10_000)
    path = book(tmp_path / "a.xlsx", xl__worksheets__sheet1=b" " * 20_000)
    with pytest.raises(UserError, match=r"a\.xlsx: has 20,000 bytes when it is unpacked"):
        sheets.pages(path)


def test_repeated_cells_are_counted_before_they_are_made(tmp_path):
    cell = '<table:table-cell table:number-columns-repeated="16384" office:value-type="string"/>'
    row = f'<table:table-row table:number-rows-repeated="1048576">{cell}</table:table-row>'
    path = book(tmp_path / "a.ods", **{"content.xml": f'<table:table table:name="a">{row}'})
    with pytest.raises(UserError, match="row 1048576 and column 16384"):
        sheets.pages(path)


def test_an_old_book_that_asks_for_all_memory_is_refused(tmp_path):
    import xlwt

    old = xlwt.Workbook()
    old.add_sheet("x").write(0, 0, "subject")
    old.save(str(tmp_path / "a.xls"))
    assert sheets.pages(str(tmp_path / "a.xls")) == {"x": [["subject"]]}
    content = bytearray((tmp_path / "a.xls").read_bytes())
    content[30:32] = b"\xff\x00"  # sectors of 2^255 bytes
    (tmp_path / "a.xls").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.xls: cannot be read as a workbook"):
        sheets.pages(str(tmp_path / "a.xls"))


# ----- what is no file, or claims too much --------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (frames.read_file, Unreachable),
        (lambda path: list(video.decode(path)), Unreachable),
        (sheets.pages, UserError),
        (files.read_json, UserError),
        (lambda path: files.read_npz(path, ["a"]), UserError),
        (files.sha256, OSError),
    ],
)
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_only_regular_files_are_opened(tmp_path, read, error, what):
    path = tmp_path / "a.csv"
    os.mkfifo(path) if what == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(error, match="no regular file"):
        read(str(path))


def test_a_jpeg_file_that_claims_too_many_pixels_is_no_frame(tmp_path):
    data = bytearray(drawn.jpeg(np.zeros((32, 32, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (65_000).to_bytes(2, "big") * 2
    (tmp_path / "1.jpg").write_bytes(data)
    with pytest.raises(FrameError, match="claims 65000 x 65000 pixels"):
        frames.read_frame(frames.ImageFolder(str(tmp_path), ("1.jpg",)), 0)


# ----- JSON, logs, tables -------------------------------------------------------------------------


@few
@given(st.binary(max_size=60) | st.just(b'{"a": ' + b"9" * 5000 + b"}") | st.just(b"[" * 5_000))
def test_any_content_of_our_files_is_read_or_refused(tmp_path, content):
    for name in ("a.json", log.METRICS, "a.csv", "a.npz", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
    with refused:
        files.read_json(tmp_path / "a.json")
    assert all(type(line["step"]) is int for line in log.read_metrics(tmp_path))
    with refused:
        files.read_npz(tmp_path / "a.npz", ["a"])
    with refused:
        predictions.read_predictions(tmp_path / "a.csv", ["x"])
    with refused:
        tensors.read(tmp_path / "a.safetensors")


CLIP = {"id": "a", "shard": 0, "first": 0, "count": 3, "numbers": [[5, 3]], "label": 1, "fps": 25.0}
SHARD = {"file": "frames-00000.array_record", "records": 4, "bytes": 2, "sha256": "0"}


def manifest(folder, clip=CLIP, shard=SHARD):
    """A prepared folder whose manifest has this clip and this shard."""
    content = {"format": 1, "name": "folder", "kind": "source", "size": 64, "annotations": ""}
    content |= {"classes": ["x", "y"], "notes": [], "set_aside": [], "repairs": []}
    content |= {"shards": [shard], "clips": [clip]}
    (folder / SHARD["file"]).write_bytes(b"12")
    (folder / format.MANIFEST).write_text(json.dumps(content))
    return folder


@few
@given(
    st.sampled_from([*CLIP, "onset", "apex", "subject"]),
    st.sampled_from([-1, -7, 2, 99, 10**12, 1.5, float("nan"), "x", None, [[0, 10**12]], [[1, 3]]]),
)
def test_any_entry_of_a_manifest_lies_within_the_files_or_is_refused(tmp_path, name, value):
    with refused:
        (clip,) = prepared.read(manifest(tmp_path, CLIP | {name: value}), "folder", "source").clips
        assert 0 <= clip.frames.first < clip.frames.first + len(clip.frames) <= SHARD["records"]
        assert -1 <= clip.label < 2
        assert -1 <= clip.onset < len(clip.frames)
        assert len(prepared.frame_numbers(tmp_path)[clip.id]) == len(clip.frames)


@pytest.mark.parametrize("file", ["../b.array_record", "/etc/passwd", "in/b", "..", ""])
def test_the_files_of_a_manifest_lie_beside_it(tmp_path, file):
    with pytest.raises(UserError, match=r"prepared\.json: .*no name in this folder"):
        prepared.read(manifest(tmp_path, shard=SHARD | {"file": file}), "folder", "source")


# ----- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("layer1.0.conv1.weight", np.nan, "4 of the 4 values of .* are not finite"),
        ("bn1.running_var", -1, "is a variance, and -1 is below 0"),
        ("bn1.running_var", 0, ""),
    ],
)
def test_weights_that_cannot_be_are_named(name, value, told):
    found = tensors.impossible(name, np.full((2, 2), value, np.float32))
    assert bool(found) == bool(told)
    if told:
        with pytest.raises(UserError, match=f"w: .*{told}"):
            raise tensors.refusal("w", found)


def test_numbers_of_8_bits_are_refused(tmp_path):
    content = bytearray(save({"a": np.zeros(4, np.int8)}))
    (tmp_path / "a.safetensors").write_bytes(content.replace(b'"I8"', b'"F8_E4M3"'))
    content = (tmp_path / "a.safetensors").read_bytes()
    header = content[8 : content.index(b"}}") + 2]
    rest = content[content.index(b"}}") + 2 :].lstrip(b" ")
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + rest)
    with pytest.raises(UserError, match=r"a\.safetensors: not a whole safetensors file"):
        tensors.read(tmp_path / "a.safetensors")


ODD_SHAPES = (10**9, "8888", {}, [], [0] * 4, [-8] * 4, [8.0] * 4, [[8]] * 4, [10**9] * 4)


@few
@given(
    st.sampled_from(
        ["scaling_factor", "layers_per_block", "norm_num_groups", "block_out_channels"]
    ),
    st.none() | st.booleans() | st.integers(-2, 99) | st.floats() | st.sampled_from(ODD_SHAPES),
)
def test_any_shape_of_an_autoencoder_is_possible_or_refused(tmp_path, name, value):
    (tmp_path / "config.json").write_text(json.dumps({name: value}))
    with refused:
        config = diffusers._read_config(tmp_path / "config.json")
        assert 0 < config.scaling_factor < float("inf")
        assert 1 <= config.layers_per_block <= 64
        assert all(channel % config.norm_num_groups == 0 for channel in config.block_out_channels)
