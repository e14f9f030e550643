"""Bytes that are flipped or cut off in what a run wrote; then the command that reads it runs."""

import functools
import pathlib
import random
import shutil

import small
from verdicts import BAD, RIGHT, SHORT, TO_COMPILE, Case, Verdict, judged, run

FAULTS = ("flip", "cut", "empty")


def damaged(file: pathlib.Path, fault: str, rng: random.Random) -> None:
    """Changes one bit of the file, cuts it at a random place, or empties it."""
    data = bytearray(file.read_bytes())
    if fault == "flip" and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif fault == "cut" and data:
        del data[rng.randrange(len(data)) :]
    else:
        data.clear()
    file.write_bytes(data)


def some_file(top: pathlib.Path, rng: random.Random, kinds: dict[str, str], kind: str):
    """A random file of one kind."""
    found = sorted(path for path in top.glob(kinds[kind]) if path.is_file())
    return found[rng.randrange(len(found))]


# ----- what is read by which command --------------------------------------------------------------

UNFINISHED = {
    "config": "config.json",
    "metrics": "metrics.jsonl",
    "weights": "checkpoints/[0-9]*/**/d/*",
    "records of orbax": "checkpoints/[0-9]*/**/*anifest.ocdbt",
    "metadata": "checkpoints/[0-9]*/**/_*",
    "checksums": "checkpoints/[0-9]*/checksums.json",
}
FINETUNED = {
    "config": "config.json",
    "results": "results.json",
    "predictions": "predictions.csv",
    "history": "checkpoints/history-*.npz",
    "weights": "checkpoints/[0-9]*/**/d/*",
    "metadata": "checkpoints/[0-9]*/**/_*",
    "checksums": "checkpoints/[0-9]*/checksums.json",
}
PREPARED = {
    "manifest": "prepared.json",
    "frames": "frames-*.array_record",
    "record of frames": "frames-*.json",
    "latents": "latents-*.npy",
    "record of latents": "latents.json",
    "record of a file of latents": "latents-*.json",
}
PRETRAINED = {
    "config": "config.json",
    "weights": "checkpoints/[0-9]*/**/d/*",
    "records of orbax": "checkpoints/[0-9]*/**/*anifest.ocdbt",
}
CACHE = {"films": "**/*.npy", "records": "**/*.json"}


def unfinished(place: pathlib.Path) -> pathlib.Path:
    """A pre-training that was killed at its last step."""
    folder = place / "run"
    shutil.copytree(small.pretrained(), folder)
    (folder / "summary.json").unlink()
    last = max((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    shutil.rmtree(last)
    return folder


def resumed(rng, place, kind, fault) -> Verdict:
    """The run goes on to the same end, or says what is damaged."""
    folder = unfinished(place)
    file = some_file(folder, rng, UNFINISHED, kind)
    damaged(file, fault, rng)
    words = [*small.PRETRAIN, f"--run={folder}"]
    done = run(words, small.environment(), work=TO_COMPILE)
    return same_or_told(done, folder, small.pretrained(), file)


def same_or_told(done, folder, reference, file) -> Verdict:
    if done.code != 0:
        return judged(done, names=(file.name, str(folder)))
    verdict = judged(done, goes_on=True)
    if verdict.kind != RIGHT:
        return verdict
    different = small.difference(folder, reference)
    if not different or "damaged" in done.said or file.name in done.said:
        return Verdict(RIGHT)
    return Verdict(BAD, f"{file.name}: goes on without a word, and {different}")


def evaluated(rng, place, kind, fault) -> Verdict:
    """evaluate.py disagrees, refuses, or finds the very same."""
    folder = place / "run"
    shutil.copytree(small.finetuned(), folder)
    file = some_file(folder, rng, FINETUNED, kind)
    before = file.read_bytes()
    damaged(file, fault, rng)
    done = run(["evaluate", f"--run={folder}"], small.environment())
    if done.code == 0 and kind in ("weights", "predictions") and file.read_bytes() != before:
        return Verdict(BAD, f"{file.name}: evaluate.py agrees with a damaged file")
    return judged(done, names=(str(folder),), goes_on=True)


def read_prepared(rng, place, kind, fault) -> Verdict:
    """A pre-training on damaged prepared data ends at once; or nothing that it reads is damaged."""
    folder = place / "prepared"
    shutil.copytree(small.prepared(), folder)
    file = some_file(folder, rng, PREPARED, kind)
    before = file.read_bytes()
    damaged(file, fault, rng)
    words = ["prepare", "--source=folder", f"--data-root={folder}", "--size=64"]
    done = run([*words, f"--out={place / 'out'}"], small.environment())
    read = kind in ("manifest", "frames") and file.read_bytes() != before
    if done.code == 0 and read and "replaced" not in done.said and "damaged" not in done.said:
        return Verdict(BAD, f"{file.name}: used without a word")
    return judged(done, goes_on=True)


def started_from(rng, place, kind, fault) -> Verdict:
    """A fine-tuning does not start from damaged weights."""
    folder = place / "pretrained"
    shutil.copytree(small.pretrained(), folder)
    last = max((folder / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    for other in (folder / "checkpoints").glob("[0-9]*"):
        if other != last:
            shutil.rmtree(other)
    file = some_file(folder, rng, PRETRAINED, kind)
    damaged(file, fault, rng)
    out = place / "resnets"
    done = run(["evaluate", f"--run={folder}", f"--export={out}"], small.environment())
    if done.code == 0 and kind != "config":
        return Verdict(BAD, f"{file.name}: damaged weights are exported without a word")
    return judged(done, names=(str(folder),), goes_on=True)


def drawn_again(rng, place, kind, fault) -> Verdict:
    """A damaged cache is made anew, or serves all the same."""
    small.pretrained()
    cache = place / "cache"
    shutil.copytree(small.PLACE / "cache", cache, ignore=shutil.ignore_patterns("xla"))
    found = sorted(path for path in cache.glob(CACHE[kind]) if path.is_file())
    if not found:
        return Verdict(SHORT, f"the cache holds no {CACHE[kind]}")
    file = found[rng.randrange(len(found))]
    damaged(file, fault, rng)
    words = ["prepare", "--source=synthetic", "--clips=4", "--size=96"]
    clean, given = small.environment(), small.environment() | {"MA2MI_CACHE": str(cache)}
    reference = small.PLACE / "prepared-synthetic"
    if not reference.exists():
        small.well(run([*words, f"--out={reference}"], clean, work=TO_COMPILE))
    done = run([*words, f"--out={place / 'out'}"], given)
    if done.code != 0:
        return judged(done)
    different = small.difference(place / "out", reference)
    if different and "thrown away" not in done.said:
        return Verdict(BAD, f"{file.name}: used without a word ({different})")
    return judged(done, goes_on=True)


QUICK = {"prepared/frames/cut", "prepared/manifest/cut"}


def cases() -> list[Case]:
    """Every kind of file with every kind of fault."""
    told = {
        "resumed": (resumed, UNFINISHED),
        "evaluated": (evaluated, FINETUNED),
        "prepared": (read_prepared, PREPARED),
        "exported": (started_from, PRETRAINED),
        "cache": (drawn_again, CACHE),
    }
    return [
        Case(
            "storage",
            f"{name}/{kind}/{fault}",
            functools.partial(make, kind=kind, fault=fault),
            quick=f"{name}/{kind}/{fault}" in QUICK,
        )
        for name, (make, kinds) in told.items()
        for kind in kinds
        for fault in FAULTS
    ]
