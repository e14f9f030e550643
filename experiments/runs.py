"""List the runs below a folder: score, N, date, commit, how far each is, and the command.

  python experiments/runs.py
  python experiments/runs.py runs/reproduce --json

The earliest comes first. A run is `finished`, `running` (another process is at work there),
`stopped` (its command goes on), or `damaged`. Whatever is no run is passed over. A pre-training's
score is its last L_rec as a share of the copy baseline: 1 is no better than repeating the frame.
"""

import dataclasses
import json
import pathlib

import cli

from ma2mi_jax import files
from ma2mi_jax.training import run_list
from ma2mi_jax.training.run_list import Listed

WORDS = {"accuracy": "accuracy", "uf1": "UF1", "copy_share": "L_rec/copy"}  # UAR is in the JSON
DAY = len("2026-11-29")


def parsed(argv):
    p = cli.parser(__doc__)
    help = "where the runs lie, at any depth (runs)"
    p.add_argument(
        "folder", nargs="?", type=pathlib.Path, default="runs", metavar="FOLDER", help=help
    )
    p.add_argument("--json", action="store_true", help="a JSON list in place of the table")
    return p.parse_args(argv)


def main(argv):
    f = parsed(argv)
    found = run_list.below(f.folder)
    if f.json:
        records = [
            dataclasses.asdict(run) | {"folder": files.printable(str(run.folder))} for run in found
        ]
        cli.say(json.dumps(files.plain(records), indent=2))
        return
    show(found)
    counts = {state: sum(run.state == state for run in found) for state in run_list.STATES}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    cli.say(f"{len(found)} runs below {f.folder}" + (f": {told}" if told else ""))


def show(found: list[Listed]) -> None:
    """The table; each run's name and its command are lines of their own, for they may be long."""
    rows = [cells(run) for run in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for run, row in zip(found, rows, strict=True):
        cli.out.print(files.printable(str(run.folder)), style="bold", markup=False, soft_wrap=True)
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        cli.say(f"  {'  '.join(padded).rstrip()}")
        if run.state != "finished":
            cli.say(f"  {run.note}")
        if run.command:
            cli.say(f"  {run.command}")
        cli.say("")


def cells(run: Listed) -> tuple[str, ...]:
    """State and score, N, day and commit."""
    scores = ", ".join(
        f"{word} {run.scores[name]:.4f}" for name, word in WORDS.items() if name in run.scores
    )
    state = run.state
    if state == "finished":
        state = f"{state}: {scores or run.note}"
    return (state, "" if run.n is None else f"N {run.n}", run.made[:DAY], run.commit)


if __name__ == "__main__":
    cli.run(main)
