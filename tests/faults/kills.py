"""Signals at random moments of a command, again and again; then its end must be that of one that
nothing disturbed."""

import functools
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import small
from verdicts import BAD, RIGHT, SHORT, TO_COMPILE, TO_LEAVE, Case, Done, Verdict, run

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PHASES = ("start", "compile", "checkpoint", "middle", "end")
CHAINS = {"pretrain": 8, "finetune": 8, "prepare": 8}  # of PER_CHAIN kills each
PER_CHAIN = 3
OUT = {"pretrain": "run", "finetune": "run", "prepare": "out"}
RESULT = {"pretrain": "summary.json", "finetune": "results.json", "prepare": "latents.json"}
BEGUN = {"pretrain": "config.json", "finetune": "config.json", "prepare": "frames-*"}
MIDDLE = {
    "pretrain": "metrics.jsonl",
    "finetune": "checkpoints/history-*",
    "prepare": "latents-*",
}


def moment(script: str, folder: pathlib.Path, phase: str, rng: random.Random):
    """`until()` of a kill: true at a random time of this phase."""
    delay = rng.uniform(0, 2) if phase in ("start", "compile", "middle") else rng.uniform(0, 0.1)
    pattern = {
        "start": None,
        "compile": BEGUN[script],
        "checkpoint": "checkpoints/**/*.orbax-checkpoint-tmp*" if script != "prepare" else "*.part",
        "middle": MIDDLE[script],
        "end": RESULT[script],
    }[phase]
    reached = None

    def until() -> bool:
        nonlocal reached
        if reached is None and (pattern is None or next(folder.glob(pattern), None)):
            reached = time.monotonic()
        return reached is not None and time.monotonic() - reached >= delay

    return until


def of_signal(done: Done, number: int, what: str) -> Verdict:
    """The verdict on how a command left."""
    if done.code is None:
        return Verdict(BAD, f"{what}: does not end")
    if "Traceback" in done.err:
        return Verdict(SHORT, f"{what}: traceback, {done.last!r}")
    if number == signal.SIGKILL or done.code == 0:
        return Verdict(RIGHT)
    if done.took > TO_LEAVE:
        return Verdict(SHORT, f"{what}: took {done.took:.1f} s to leave")
    if done.code != 128 + number:
        return Verdict(SHORT, f"{what}: exit code {done.code}, expected {128 + number}")
    return Verdict(RIGHT)


def words_of(script: str) -> list:
    return {
        "pretrain": small.PRETRAIN,
        "finetune": small.FINETUNE,
        "prepare": small.preparation() if script == "prepare" else [],
    }[script]


def chain(rng: random.Random, place: pathlib.Path, script: str, kills: int) -> list[Verdict]:
    """Kills a command `kills` times, lets it end, and compares."""
    reference = {
        "pretrain": small.pretrained,
        "finetune": small.finetuned,
        "prepare": small.prepared,
    }[script]()
    folder, found = place / "run", []
    words = [*words_of(script), f"--{OUT[script]}={folder}"]
    told = []
    for _ in range(kills):
        number, phase = rng.choice(SIGNALS), rng.choice(PHASES)
        if (folder / RESULT[script]).exists():
            break
        what = f"{script} {signal.Signals(number).name} at {phase}"
        until = moment(script, folder, phase, rng)
        done = run(words, small.environment(), until, number, TO_COMPILE)
        found.append(of_signal(done, number, what))
        told.append(what)
    last = " after " + ", ".join(told)
    if not (folder / RESULT[script]).exists() or script == "prepare":
        done = run(words, small.environment(), work=TO_COMPILE)
        if done.code != 0:
            return [*found, Verdict(BAD, f"does not go on{last}: {done.last!r}")]
    different = small.difference(folder, reference)
    return [*found, Verdict(BAD, f"{different}{last}") if different else Verdict(RIGHT)]


def at_import(rng: random.Random, place: pathlib.Path, script: str, number: int) -> Verdict:
    """A signal while a fresh interpreter imports."""
    words = [sys.executable, str(small.commands.ROOT / "experiments" / f"{script}.py"), "--help"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=small.environment(), **pipes) as process:
        time.sleep(rng.uniform(0.5, 2.5))
        process.send_signal(number)
        began = time.monotonic()
        try:
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            return Verdict(BAD, "does not end")
        done = Done(process.returncode, "", err, 0, time.monotonic() - began)
    if done.code == -number:  # before the first line of ours
        return Verdict(RIGHT)
    return of_signal(done, number, f"{script} {signal.Signals(number).name} at import")


def killed_parent(rng: random.Random, place: pathlib.Path, number: int) -> Verdict:
    """reproduce.py is ended: so is the run that it has started."""
    words = ["reproduce", "--target=synthetic", "--table=4", "--clips=4", "--steps=2"]
    words += ["--subjects=2", "--clips-per-subject=4", "--finetune-epochs=1", f"--out={place}"]
    words += ["--pretrain-flags=--batch-size=2 --workers=0", "--finetune-flags=--batch-size=4"]
    runs = f"={place}/"

    def children() -> list[int]:
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = entry.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if runs in line and "pretrain.py" in line:
                found.append(int(entry.parent.name))
        return found

    delay, seen = rng.uniform(0, 4), []

    def until() -> bool:
        if not seen and children():
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > delay

    done = run(words, small.environment(), until, number, TO_COMPILE)
    deadline = time.monotonic() + TO_LEAVE
    while children() and time.monotonic() < deadline:
        time.sleep(0.1)
    if left := children():
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return Verdict(BAD, f"its child runs on after {signal.Signals(number).name}")
    return of_signal(done, number, f"reproduce {signal.Signals(number).name}")


def cases() -> list[Case]:
    """All of them."""
    found = []
    for script, count in CHAINS.items():
        for i in range(count):
            make = functools.partial(chain, script=script, kills=PER_CHAIN)
            found.append(Case("kills", f"{script} {i}", make))
    quick = functools.partial(chain, script="pretrain", kills=1)
    found.append(Case("kills", "pretrain once", quick))  # the tests have one like it
    for script in ("pretrain", "finetune", "prepare", "reproduce"):
        for number in (signal.SIGINT, signal.SIGTERM):
            make = functools.partial(at_import, script=script, number=number)
            name = f"import of {script} {signal.Signals(number).name}"
            found.append(Case("kills", name, make, quick=script == "pretrain"))
    for number in SIGNALS:
        make = functools.partial(killed_parent, number=number)
        found.append(Case("kills", f"reproduce {signal.Signals(number).name}", make))
    return found
