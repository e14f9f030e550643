"""Compare finished fine-tunings over the same clips: scores, paired differences, a picture.

  python experiments/compare.py runs/casme2-from-none runs/casme2-from-dfew-paper-0
  python experiments/compare.py runs/a runs/b runs/c --out=comparison

The first run is what the others are compared with. Intervals and p are over subjects, and over
seeds of fine-tuning where both runs have several. Runs over other clips, subjects, labels or
classes are refused, with what differs. Writes compare.json, compare.csv and compare.png into the
first run's folder, or into --out, in place of those of an earlier comparison.
"""

import pathlib

import cli

from ma2mi_jax.evaluation import comparison, intervals

SCORES = {"accuracy": "accuracy", "uf1": "UF1", "uar": "UAR"}


def parsed(argv):
    p = cli.parser(__doc__)
    help = "folders of finished experiments/finetune.py, two or more"
    p.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help=help)
    p.add_argument("--out", type=pathlib.Path, help="folder (that of the first run)")
    return p.parse_args(argv)


def main(argv):
    f = parsed(argv)
    found = comparison.compare(f.runs)
    out = f.out or f.runs[0]
    cli.make_folder(out)
    written = comparison.write(out, found)
    show(found)
    cli.say(f"written: {' '.join(map(str, written))}")


def show(found) -> None:
    """Which letter is which run, the scores of each, and the differences to the first."""
    letters = comparison.lettered(found)
    for each in found["runs"]:
        cli.say(f"{letters[each['run']]}  {each['run']}")
    cli.say("")

    rows = []
    for each in found["runs"]:
        cells = (
            "{:.4f} ({:.2f}–{:.2f})".format(each[name]["mean"], *each[name]["interval95"])
            for name in SCORES
        )
        rows.append((letters[each["run"]], *cells, str(len(each["seeds"]))))
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


def over(found, letters) -> str:
    """What intervals and p are over."""
    one = [letters[each["run"]] for each in found["runs"] if len(each["seeds"]) == 1]
    if not one:
        return "interval and p over subjects and seeds of fine-tuning"
    return (
        f"interval and p over subjects alone where a run has one seed ({', '.join(one)}): its "
        "training is held fixed, and others may land outside the interval"
    )


if __name__ == "__main__":
    cli.run(main)
