"""Compare finished fine-tunings over the same clips: scores, paired differences, a picture.

  python experiments/compare.py runs/casme2-from-none runs/casme2-from-dfew-paper-0
  python experiments/compare.py runs/a runs/b runs/c --out=comparison
  python experiments/compare.py runs/maer-0,runs/maer-1 runs/ma2mi-0,runs/ma2mi-1,runs/ma2mi-2

The first run is what the others are compared with. Intervals and p are over subjects, and over
seeds of fine-tuning where both runs have several. Runs that commas join are one method, pre-trained
several times; then the interval is over pre-trainings in place of seeds, and a pre-training counts
once. Runs over other clips, subjects, labels or classes are refused, with what differs. Writes
compare.json, compare.csv and compare.png into the first run's folder, or into --out, in place of
those of an earlier comparison.
"""

import pathlib

import cli

from ma2mi_jax.evaluation import comparison, intervals

SCORES = {"accuracy": "accuracy", "uf1": "UF1", "uar": "UAR"}


def parsed(argv):
    p = cli.parser(__doc__)
    help = "folders of finished experiments/finetune.py, two or more"
    p.add_argument("runs", nargs="+", type=side, metavar="RUN[,RUN...]", help=help)
    p.add_argument("--out", type=pathlib.Path, help="folder (that of the first run)")
    return p.parse_args(argv)


def side(text: str) -> list[pathlib.Path]:
    """The folders of a method: of one run, or of several between commas."""
    whole = pathlib.Path(text)
    return [whole] if whole.exists() else [pathlib.Path(part) for part in text.split(",")]


def main(argv):
    f = parsed(argv)
    found = comparison.compare(f.runs)
    out = f.out or f.runs[0][0]
    cli.make_folder(out)
    written = comparison.write(out, found)
    show(found)
    cli.say(f"written: {' '.join(map(str, written))}")


def show(found) -> None:
    """Which letter is which run, the scores of each, and the differences to the first."""
    letters = comparison.lettered(found)
    for each in found["runs"]:
        letter, folders = letters[each["run"]], each["folders"]
        for folder in folders:
            score = f"  accuracy {folder['accuracy']:.4f}" if len(folders) > 1 else ""
            cli.say(f"{letter:2} {folder['run']}{score}")
            letter = ""
    cli.say("")

    rows = []
    for each in found["runs"]:
        cells = (
            "{:.4f} ({:.2f}–{:.2f})".format(each[name]["mean"], *each[name]["interval95"])
            for name in SCORES
        )
        rows.append((letters[each["run"]], *cells, trainings(each)))
    label = intervals.labels(found["runs"][0], found["subjects"])
    caption = f"{found['subjects']} subjects, N = {found['n']}; in brackets: interval, {label}"
    cli.table("scores", ("run", *SCORES.values(), "seeds"), rows, caption)

    rows = []
    for each in found["differences"]:
        pair = f"{letters[each['run']]} − {letters[each['minus']]}"
        for name, shown in SCORES.items():
            v = each[name]
            interval = "{:+z.2f} to {:+z.2f}".format(*v["interval95"])
            p = intervals.shown_p(v["p"])
            rows.append((pair, shown, f"{v['difference']:+z.4f}", interval, p))
            pair = ""
    label = intervals.labels(found["differences"][0], found["subjects"])
    columns = ("", "", "difference", f"interval, {label}", "p")
    cli.table("the same subjects", columns, rows, over(found, letters))
    for caution in found["cautions"]:
        cli.say(caution)


def trainings(side) -> str:
    """How often a method was fine-tuned, and in how many runs if in several."""
    seeds, runs = len(side["seeds"]), len(side["folders"])
    return f"{seeds} in {runs} runs" if runs > 1 else f"{seeds}"


def over(found, letters) -> str:
    """What intervals and p are over."""
    one = [letters[each["run"]] for each in found["runs"] if len(each["seeds"]) == 1]
    several = [letters[each["run"]] for each in found["runs"] if len(each["folders"]) > 1]
    if one:
        return (
            "interval and p over subjects alone where a run has one seed "
            f"({', '.join(one)}): its training is held fixed, and others may land outside the "
            "interval"
        )
    if several:
        return (
            "interval and p over subjects and over pre-trainings "
            f"({', '.join(several)}; of runs that stand alone over seeds of fine-tuning)"
        )
    return "interval and p over subjects and seeds of fine-tuning"


if __name__ == "__main__":
    cli.run(main)
