"""Probe a pre-training run: logistic regression on its frozen features, leaving subjects out.

  python experiments/probe.py --run=runs/dfew-paper-0 --target=casme2
  python experiments/probe.py --run=none --preset=tiny --target=synthetic --subjects=20

Nothing is trained but the regression, so it takes a minute. Of onset and apex it is given C_Δ; all
places before they are pooled; and the same of F^a alone. Random weights of the same networks are
probed beside the run: what they score, nobody has learned.

Writes probe.json into the run's folder, or into --out. It replaces the one of an earlier probe.
"""

import dataclasses
import pathlib
import time

import cli
import flags

from ma2mi_jax import files
from ma2mi_jax.evaluation import intervals, probe
from ma2mi_jax.runs import folder
from ma2mi_jax.training import finetuning_run
from ma2mi_jax.training.run_config import FinetuneRun

SCORES = {"accuracy": "accuracy", "uf1": "UF1", "uar": "UAR"}
RANDOM = "random weights"
NETWORK = ("preset", "fusion", "pooling")


def parsed(argv):
    p = cli.parser(__doc__)
    help = "folder of a finished experiments/pretrain.py; none: random weights alone"
    p.add_argument("--run", required=True, metavar="RUN|none", help=help)
    flags.add_dataset(p, ("target",))
    flags.add(p, FinetuneRun, only=NETWORK)
    control = p.add_argument_group("random weights")
    help = "probe them beside the run (true)"
    control.add_argument("--control", type=cli.truth, default=True, metavar="true|false", help=help)
    control.add_argument("--seed", type=cli.natural, default=0, help="of the weights (0)")
    help = "folder of probe.json (the run's; without one runs/probe-<target>-<preset>-<seed>)"
    p.add_argument("--out", type=pathlib.Path, help=help)

    f = p.parse_args(argv)
    given = {name: value for name in NETWORK if (value := vars(f).pop(name, None))}
    f.start = FinetuneRun(flags.dataset_of(vars(f)), init=f.run, **given)
    alone = f"probe-{f.start.dataset.name}-{f.start.preset or 'paper'}-{f.seed}"
    f.out = f.out or (pathlib.Path("runs", alone) if f.run == "none" else pathlib.Path(f.run))
    return f


def main(argv):
    began, f = time.monotonic(), parsed(argv)
    start = probe.read(f.start)
    cli.make_folder(f.out)
    cli.keep_compiled_programs()

    # ------------------------------------------------------------------------------ what is probed
    size, spec = start.architecture.image_size, f.start.dataset
    dataset = finetuning_run.read_clips((spec,), size, cli.LISTENER)
    for note in dataset.notes:
        cli.log(note)
    folds = finetuning_run.make_folds({"name": "loso", "folds_file": None}, dataset.clips)
    data, replaced = finetuning_run.load(dataset, size, None, None, cli.LISTENER)
    weights = {} if start.weights is None else {pathlib.Path(f.run).name: start.weights}
    if not weights or f.control:
        weights[RANDOM] = probe.random_weights(start.architecture, f.seed)
    seen = {
        name: probe.features_of(start.architecture, each, data, cli.LISTENER)
        for name, each in weights.items()
    }

    # ------------------------------------------------------------------------------------- results
    found = probe.probe(dataset, folds, seen, cli.LISTENER) | {
        "run": f.run,
        "seed": f.seed,
        "target": spec.shown,
        "dataset": finetuning_run.located(spec),
        "architecture": dataclasses.asdict(start.architecture),
        "protocol": "loso",
        "annotations": dataset.annotations,
        "set_aside": [dataclasses.asdict(each) for each in dataset.set_aside],
        "notes": dataset.notes,
        "repairs": [dataclasses.asdict(each) for each in dataset.repairs],
        "frames_replaced": [dataset.clips[i].id for i in replaced],
        "seconds": round(time.monotonic() - began, 1),
        "versions": folder.made_with(),
    }
    files.write_json(f.out / "probe.json", found)
    print_scores(found)
    cli.say(f"{found['seconds']} s; probe: {f.out / 'probe.json'}")


def print_scores(found) -> None:
    """Each of the features under each network, the majority class, and the differences."""

    def row(*name, of):
        scores = (f"{of[key]:.4f}" for key in SCORES)
        spans = ("{:.2f}–{:.2f}".format(*of["seeds"][key]["interval95"]) for key in SCORES)
        return (*name, *scores, *spans)

    (first, of_first), *others = found["networks"].items()
    rows = []
    for name, of in of_first.items():
        words = f"{probe.FEATURES[name]} ({of['values']})"
        rows.append(row(words, first, of=of))
        rows += [row("", other, of=of_other[name]) for other, of_other in others]
    rows.append(row("the majority class", "", of=found["majority"]))
    columns = ("features", "weights", *SCORES.values(), *(f"interval {s}" for s in SCORES.values()))
    label = intervals.labels(found["majority"]["seeds"], found["subjects"])
    sheet = f"; {found['annotations']}" if found["annotations"] else ""
    caption = (
        f"N = {found['n']}, {found['subjects']} subjects, leave one subject out; "
        f"intervals: {label}, over subjects, the weights held fixed; "
        f"{len(found['classes'])} classes{sheet}"
    )
    cli.table(f"logistic regression on frozen features: {found['target']}", columns, rows, caption)

    for other, of_other in found["difference"].items():
        rows = []
        for name, scores in of_other.items():
            cells = (
                "{:+z.4f} ({:+z.2f} to {:+z.2f})".format(s["difference"], *s["interval95"])
                for s in (scores[key] for key in SCORES)
            )
            rows.append((probe.FEATURES[name], *cells))
        columns = ("features", *SCORES.values())
        label = intervals.labels(scores, found["subjects"])
        caption = f"intervals: {label}, over subjects; both networks are held fixed"
        cli.table(f"{first} − {other}", columns, rows, caption)


if __name__ == "__main__":
    cli.run(main)
