"""Odd input: files that no camera, no spreadsheet and no training wrote."""

import functools
import json
import os
import pathlib
import random
import shutil
import struct
import zipfile

import drawn
import numpy as np
import openpyxl
import small
from safetensors.numpy import save_file
from verdicts import BAD, Case, Verdict, judged, run

from ma2mi_jax.models.weights import tensors

DIGITS = "9" * 5000
SCRIPT = "<script>alert(1)</script>"
NOT_UTF8 = os.fsdecode(b"gr\xfc\xdfe")


# ----- frames and videos --------------------------------------------------------------------------


def frames_folder(place: pathlib.Path, count: int = 8) -> pathlib.Path:
    """A root with a folder of face crops that can be used."""
    images = [drawn.face(48, 40, 70, (96, 96), mouth=i % 4 / 4) for i in range(count)]
    drawn.image_folder(place / "good", images)
    return place / "good"


def claims(width: int, height: int) -> bytes:
    """A JPEG file whose header claims that size."""
    data = bytearray(drawn.jpeg(drawn.face(48, 40, 70, (96, 96))))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bomb_png(side: int = 20_000) -> bytes:
    """A PNG file of one colour: small on the disk, large in memory."""
    import zlib

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(1)
    row = bytes(1 + 3 * side)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def odd_frame(rng, place, make, name="img3.jpg"):
    """One frame of a folder is odd: the folder is set aside, and this is told."""
    frames_folder(place)
    bad = drawn.image_folder(place / "odd", [drawn.face(48, 40, 70, (96, 96))] * 6) / name
    bad.unlink(missing_ok=True)
    make(bad)
    return prepared_folder(place, names=("odd", "passed over"))


def odd_video(rng, place, make, names=("odd", "passed over")):
    frames_folder(place)
    make(place / "odd.mp4")
    return prepared_folder(place, names)


def prepared_folder(place, names=()):
    words = ["prepare", "--source=folder", f"--data-root={place}", "--size=64"]
    done = run([*words, f"--out={place.parent / 'out'}"], small.environment())
    return judged(done, names=names, goes_on=True)


def writes(content):
    return lambda path: path.write_bytes(content() if callable(content) else content)


def flipped(path: pathlib.Path, rng: random.Random, count: int = 40):
    data = bytearray(path.read_bytes())
    for _ in range(count):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def film(path):
    images = [drawn.face(160, 110, 120, mouth=i % 4 / 4) for i in range(20)]
    drawn.film(path, images, "mpeg4")


def cut_film(path):
    film(path)
    path.write_bytes(path.read_bytes()[:-4000])


def wide_film(path):
    film(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack(">HH", 320, 240), struct.pack(">HH", 65000, 65000)))


FRAMES = {
    "fifo": os.mkfifo,
    "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "empty": writes(b""),
    "text": writes(b"no image\n"),
    "JPEG that claims 65,000 x 65,000": writes(lambda: claims(65_000, 65_000)),
    "JPEG that claims 30,000 x 10": writes(lambda: claims(30_000, 10)),
    "PNG of 20,000 x 20,000, one colour": writes(bomb_png),
    "PNG that claims 65,000 x 65,000": writes(lambda: drawn.png_that_claims(65_000, 65_000)),
    "cut JPEG": writes(lambda: claims(96, 96)[:-200]),
    "TIFF whose table points at itself": writes(struct.pack("<2sHIH12sI", b"II", 42, 8, 1, b"", 8)),
    "BMP that claims 60,000 x 60,000": writes(
        struct.pack(
            "<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0
        )
    ),
}
VIDEOS = {
    "fifo": os.mkfifo,
    "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "empty": writes(b""),
    "text": writes(b"no video\n"),
    "a list of other files": writes(b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "an address": writes(b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"),
    "cut": cut_film,
}


def flipped_film(rng, place):
    def make(path):
        film(path)
        flipped(path, rng)

    return odd_video(rng, place, make)


def odd_names(rng, place):
    folder = frames_folder(place)
    for name in (NOT_UTF8, "new\nline", "\x1b[31mred", "x" * 250, "9" * 250, "  "):
        shutil.copytree(folder, place / name)
    return prepared_folder(place)


def loop_of_links(rng, place):
    frames_folder(place)
    (place / "a").mkdir()
    (place / "a" / "up").symlink_to(place)
    return prepared_folder(place)


# ----- sheets -------------------------------------------------------------------------------------

HEADINGS = ["subject", "clip", "onset", "apex", "offset", "label", "fps"]
ROWS = [[f"s{i}", f"{i}", "1", "4", "8", ("happiness", "surprise")[i % 2], "100"] for i in range(4)]


def clips_with(place: pathlib.Path, rows=(), text: str | None = None, name="annotations.csv"):
    """A root of clips whose sheet has these rows, or this text."""
    folder = frames_folder(place)
    for i in range(4):
        shutil.copytree(folder, place / str(i))
    lines = [HEADINGS, *ROWS, *rows]
    if text is None:
        text = "".join(",".join(map(str, row)) + "\n" for row in lines)
    if name.endswith(".csv"):
        (place / name).write_text(text)
    else:
        book = openpyxl.Workbook()
        for row in lines:
            book.active.append(row)
        book.save(place / name)
    return place / name


def read_sheet(place, sheet=None, names=(), goes_on=True, script="prepare"):
    words = [script, "--target=csv", f"--data-root={place}", "--size=64"]
    words += [f"--annotations={sheet}"] if sheet else []
    done = run([*words, f"--out={place.parent / 'out'}"], small.environment())
    return judged(done, names=names, goes_on=goes_on)


def odd_row(rng, place, row, names):
    clips_with(place, [row])
    return read_sheet(place, names=names)


def odd_text(rng, place, text, goes_on, names=("annotations.csv", "set aside")):
    clips_with(place, text=text)
    return read_sheet(place, names=names, goes_on=goes_on)


def stray_cell(rng, place, cell):
    sheet = clips_with(place, name="annotations.xlsx")
    book = openpyxl.load_workbook(sheet)
    book.active[cell] = "x"
    book.save(sheet)
    return read_sheet(place, sheet, goes_on=True)


def changed_book(rng, place, change, goes_on=False):
    sheet = clips_with(place, name="annotations.xlsx")
    with zipfile.ZipFile(sheet) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    change(parts)
    with zipfile.ZipFile(sheet, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in parts.items():
            book.writestr(name, content)
    return read_sheet(
        place, sheet, names=("annotations.xlsx",) if not goes_on else (), goes_on=goes_on
    )


PAGE = "xl/worksheets/sheet1.xml"


def huge_member(parts):
    parts[PAGE] = parts[PAGE].replace(b"</sheetData>", b" " * 1_500_000_000 + b"</sheetData>")


def far_without_reference(parts):
    row = b'<row r="1048576"><c t="inlineStr"><is><t>x</t></is></c></row></sheetData>'
    parts[PAGE] = parts[PAGE].replace(b"</sheetData>", row)


def repeated_ods(rng, place):
    clips_with(place)
    content = (
        '<?xml version="1.0"?><office:document-content '
        'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body>'
        '<office:spreadsheet><table:table table:name="a">'
        '<table:table-row table:number-rows-repeated="1048576">'
        '<table:table-cell table:number-columns-repeated="16384" office:value-type="string">'
        "<text:p>x</text:p></table:table-cell></table:table-row></table:table>"
        "</office:spreadsheet></office:body></office:document-content>"
    )
    sheet = place / "annotations.ods"
    with zipfile.ZipFile(sheet, "w") as book:
        book.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        book.writestr("content.xml", content)
    return read_sheet(place, sheet, names=("annotations.ods",), goes_on=False)


def damaged_member(rng, place):
    sheet = clips_with(place, name="annotations.xlsx")
    with zipfile.ZipFile(sheet) as book:
        at = book.getinfo(PAGE).header_offset + 60
    data = bytearray(sheet.read_bytes())
    for i in range(at, at + 40):
        data[i] ^= rng.randrange(1, 256)
    sheet.write_bytes(data)
    return read_sheet(place, sheet, names=("annotations.xlsx",), goes_on=False)


def chart_sheet(rng, place):
    sheet = clips_with(place, name="annotations.xlsx")
    book = openpyxl.load_workbook(sheet)
    book.create_chartsheet("chart", 0).add_chart(openpyxl.chart.BarChart())
    book.save(sheet)
    return read_sheet(place, sheet)


def fifo_as_sheet(rng, place):
    clips_with(place)
    os.mkfifo(place / "a.csv")
    return read_sheet(place, place / "a.csv", names=("a.csv",), goes_on=False)


def script_in_page(rng, place):
    named = [SCRIPT.replace("/", "∕"), "3", "1", "4", "8", f"{SCRIPT}", "100"]
    clips_with(place, [named])
    verdict = read_sheet(place, script="inspect_dataset")
    page = place.parent / "out" / "index.html"
    if page.exists() and "<script>alert" in page.read_text():
        return Verdict(BAD, "a script of the sheet runs in the page")
    return verdict


def link_out(rng, place):
    outside = frames_folder(place.parent / "outside")
    clips_with(place, [["s9", "out", "1", "4", "8", "surprise", ""]])
    (place / "out").symlink_to(outside)
    return read_sheet(place)


SHEETS = {
    "path with ..": (["x", "../outside/good", 1, 4, 8, "surprise", ""], ("../outside",)),
    "absolute path": (["x", "/etc", 1, 4, 8, "surprise", ""], ("/etc",)),
    "onset of 5,000 digits": (["x", "good", DIGITS, 4, 8, "surprise", ""], ("good",)),
    "fps of 5,000 digits": (["x", "good", 1, 4, 8, "surprise", DIGITS], ()),
    "fps of 0": (["x", "good", 1, 4, 8, "surprise", "0"], ()),
    "subject of 100,000 letters": (["x" * 100_000, "good", 1, 4, 8, "surprise", ""], ()),
    "clip of 5,000 letters": (["x", "y" * 5000, 1, 4, 8, "surprise", ""], ("yyy",)),
    "clip that is no text": (["x", "a\0b", 1, 4, 8, "surprise", ""], ("a",)),
    "onset below 0": (["x", "good", -5, 4, 8, "surprise", ""], ("good",)),
    "apex of 1e300": (["x", "good", 1, "1e300", 8, "surprise", ""], ("good",)),
}
TEXTS = {
    "empty": ("", False),
    "zeros": ("\0" * 4000, False),
    "a million commas": ("," * 1_000_000, False),
    "a quote that never ends": (",".join(HEADINGS) + '\n"' + "x" * 300_000, False),
    "a million empty lines": (",".join(HEADINGS) + "\n" + "\n" * 1_000_000, False),
}


# ----- weights ------------------------------------------------------------------------------------


def resnet(place: pathlib.Path, change) -> pathlib.Path:
    """A file of the weights of a ResNet18 of preset tiny, changed."""
    found = dict(tensors.read(small.resnet()))
    change(found)
    save_file(found, place / "w.safetensors")
    return place / "w.safetensors"


def finetuned_from(file, names):
    words = ["finetune", "--target=synthetic", "--preset=smoke", f"--init={file}", "--subjects=2"]
    words += ["--clips-per-subject=4", "--epochs=1", "--batch-size=4"]
    done = run([*words, f"--run={file.parent / 'run'}"], small.environment())
    return judged(done, names=names)


def odd_weights(rng, place, change, names):
    return finetuned_from(resnet(place, change), names)


def filled(name, value):
    def change(found):
        found[name] = np.full_like(found[name], value)

    return change


def zero_sized(found):
    found["conv1.weight"] = np.zeros((0, 3, 7, 7), np.float32)


def integers(found):
    found["conv1.weight"] = found["conv1.weight"].astype(np.int32)


def odd_header(rng, place, header, rest=b""):
    file = place / "w.safetensors"
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    file.write_bytes(struct.pack("<Q", len(text)) + text + rest)
    return finetuned_from(file, ("w.safetensors",))


def float8(rng, place):
    import ml_dtypes

    found = dict(tensors.read(small.resnet()))
    content, header, at = b"", {}, 0
    for name, array in found.items():
        data = array.astype(ml_dtypes.float8_e4m3fn).tobytes()
        header[name] = {
            "dtype": "F8_E4M3",
            "shape": list(array.shape),
            "data_offsets": [at, at + len(data)],
        }
        content, at = content + data, at + len(data)
    return odd_header(rng, place, header, content)


def fifo_as_weights(rng, place):
    os.mkfifo(place / "w.safetensors")
    return finetuned_from(place / "w.safetensors", ("w.safetensors",))


WEIGHTS = {
    "NaN": (filled("layer1.0.conv1.weight", np.nan), ("layer1.0.conv1.weight",)),
    "infinite": (filled("bn1.bias", np.inf), ("bn1.bias",)),
    "a variance below 0": (filled("bn1.running_var", -1), ("bn1.running_var",)),
    "zero-sized": (zero_sized, ("w.safetensors",)),
    "integers": (integers, ("w.safetensors",)),
}
HEADERS = {
    "claims 100 GB": {
        "conv1.weight": {"dtype": "F32", "shape": [25_000_000_000], "data_offsets": [0, 10**11]}
    },
    "offsets below 0": {"conv1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
    "nested without end": b"[" * 100_000,
    "a list": [],
}
CONFIGS = {
    "scaling_factor 0": {"scaling_factor": 0},
    "scaling_factor NaN": {"scaling_factor": float("nan")},
    "scaling_factor infinite": {"scaling_factor": float("inf")},
    "scaling_factor text": {"scaling_factor": "0.18"},
    "scaling_factor null": {"scaling_factor": None},
    "layers_per_block below 0": {"layers_per_block": -1},
    "layers_per_block text": {"layers_per_block": "1"},
    "layers_per_block 1e9": {"layers_per_block": 10**9},
    "norm_num_groups 0": {"norm_num_groups": 0},
    "norm_num_groups null": {"norm_num_groups": None},
    "block_out_channels text": {"block_out_channels": "8888"},
    "block_out_channels null": {"block_out_channels": None},
    "block_out_channels nested": {"block_out_channels": [[8], [16], [16], [16]]},
    "block_out_channels below 0": {"block_out_channels": [-8, -16, -16, -16]},
    "block_out_channels 0": {"block_out_channels": [0, 0, 0, 0]},
    "block_out_channels 4e9": {"block_out_channels": [4 * 10**9] * 4},
}


def odd_config(rng, place, change):
    """An autoencoder's config.json with other values; or this text."""
    shutil.copytree(small.autoencoder(), place / "vae")
    file = place / "vae" / "config.json"
    text = change if isinstance(change, str) else json.dumps(json.loads(file.read_text()) | change)
    file.write_text(text)
    return with_autoencoder(place, ("config.json",))


def odd_autoencoder(rng, place, value):
    shutil.copytree(small.autoencoder(), place / "vae")
    (file,) = (place / "vae").glob("*.safetensors")
    found = dict(tensors.read(file))
    name = sorted(found)[rng.randrange(len(found))]
    found[name] = np.full_like(found[name], value)
    save_file(found, file)
    return with_autoencoder(place, (name,))


def with_autoencoder(place, names):
    frames_folder(place / "data", 2)
    words = ["prepare", "--source=folder", f"--data-root={place / 'data'}", "--size=64"]
    words += ["--latents", f"--vae={place / 'vae'}", "--batch-size=2"]
    done = run([*words, f"--out={place / 'out'}"], small.environment())
    return judged(done, names=names)


# ----- manifests ----------------------------------------------------------------------------------


def odd_manifest(rng, place, change, names=("prepared.json", "prepared in format"), goes_on=False):
    root = place / "prepared"
    shutil.copytree(small.prepared(), root)
    shutil.copytree(small.prepared(), place / "elsewhere")
    manifest = json.loads((root / "prepared.json").read_text())
    del manifest["checksum"]  # as who wrote it by hand, or means ill
    change(manifest, place)
    (root / "prepared.json").write_text(json.dumps(manifest))
    words = ["prepare", "--source=folder", f"--data-root={root}", "--size=64"]
    done = run([*words, f"--out={place / 'out'}"], small.environment())
    return judged(done, names=names, goes_on=goes_on)


def of_clip(**values):
    return lambda manifest, place: manifest["clips"][0].update(values)


def of_shard(**values):
    return lambda manifest, place: manifest["shards"][0].update(values)


def absolute_shard(manifest, place):
    manifest["shards"][0]["file"] = str(place / "elsewhere" / manifest["shards"][0]["file"])


def climbing_shard(manifest, place):
    manifest["shards"][0]["file"] = "../elsewhere/" + manifest["shards"][0]["file"]


MANIFESTS = {
    "path with ..": climbing_shard,
    "absolute path": absolute_shard,
    "label beyond the classes": of_clip(label=99),
    "label below -1": of_clip(label=-7),
    "shard below 0": of_clip(shard=-1),
    "shard beyond": of_clip(shard=10**6),
    "first below 0": of_clip(first=-4),
    "count beyond the shard": of_clip(count=10**4),
    "a huge count": of_clip(count=10**12),
    "count 0": of_clip(count=0),
    "count below 0": of_clip(count=-3),
    "numbers without end": of_clip(numbers=[[0, 10**12]]),
    "fps text": of_clip(fps="fast"),
    "no clips": lambda manifest, place: manifest.update(clips=[]),
    "records below 0": of_shard(records=-1),
    "format 99": lambda manifest, place: manifest.update(format=99),
}

QUICK = {
    "frames/fifo",
    "frames/JPEG that claims 65,000 x 65,000",
    "sheets/onset of 5,000 digits",
    "sheets/stray cell below",
    "weights/scaling_factor 0",
    "manifests/path with ..",
    "manifests/a huge count",
}


def cases() -> list[Case]:
    """All of them."""
    found = {}
    for name, make in FRAMES.items():
        found[f"frames/{name}"] = functools.partial(odd_frame, make=make)
    for name, make in VIDEOS.items():
        found[f"videos/{name}"] = functools.partial(odd_video, make=make)
    # The codec knows better than the file around it, and its frames are whole: nothing to say.
    found["videos/claims 65,000 x 65,000"] = functools.partial(odd_video, make=wide_film, names=())
    found["videos/40 flipped bits"] = flipped_film
    found["names/odd names"] = odd_names
    found["names/links in a circle"] = loop_of_links
    for name, (row, told) in SHEETS.items():
        found[f"sheets/{name}"] = functools.partial(odd_row, row=row, names=told)
    for name, (text, goes_on) in TEXTS.items():
        found[f"sheets/{name}"] = functools.partial(odd_text, text=text, goes_on=goes_on)
    found["sheets/stray cell below"] = functools.partial(stray_cell, cell="A1048576")
    found["sheets/stray cell to the right"] = functools.partial(stray_cell, cell="XFD3")
    found["sheets/stray cell far from both"] = functools.partial(stray_cell, cell="XFD1048576")
    found["sheets/stray cell without a reference"] = functools.partial(
        changed_book, change=far_without_reference, goes_on=True
    )
    found["sheets/a member of 1.5 GB"] = functools.partial(changed_book, change=huge_member)
    found["sheets/repeated cells of .ods"] = repeated_ods
    found["sheets/damaged zip member"] = damaged_member
    found["sheets/chart sheet"] = chart_sheet
    found["sheets/fifo"] = fifo_as_sheet
    found["sheets/link out of the root"] = link_out
    found["pages/script in names"] = script_in_page
    for name, (change, told) in WEIGHTS.items():
        found[f"weights/{name}"] = functools.partial(odd_weights, change=change, names=told)
    for name, header in HEADERS.items():
        found[f"weights/header {name}"] = functools.partial(odd_header, header=header)
    found["weights/float8"] = float8
    found["weights/fifo"] = fifo_as_weights
    for name, change in CONFIGS.items():
        found[f"weights/{name}"] = functools.partial(odd_config, change=change)
    for name in ("null", "[]", "3", '{"layers_per_block": ' + DIGITS + "}"):
        found[f"weights/config.json is {name[:24]}"] = functools.partial(odd_config, change=name)
    for name, value in (("NaN", np.nan), ("infinite", np.inf)):
        found[f"weights/autoencoder {name}"] = functools.partial(odd_autoencoder, value=value)
    for name, change in MANIFESTS.items():
        found[f"manifests/{name}"] = functools.partial(odd_manifest, change=change)
    return [Case(*name.split("/", 1), make, quick=name in QUICK) for name, make in found.items()]
