"""Fine-tune MIACNet on onset/apex pairs, all folds at once, and score the pooled predictions.

  python experiments/finetune.py --target=synthetic --init=runs/synthetic-tiny-pixel-1000-steps-0
  python experiments/finetune.py --target=casme2 --data-root=CASME2 --init=none --preset=paper
  python experiments/finetune.py --target=casme2 --protocol=cross --test-target=samm \
--init=runs/dfew-paper-0
  python experiments/finetune.py --target=casme2 --protocol=all --init=runs/dfew-paper-0
  python experiments/finetune.py --target=casme2,samm,smic --protocol=lodo --init=runs/dfew-paper-0

(Paper §3.2, §4.2.) Writes into the run's folder: config.json, results.json, predictions.csv,
folds.csv, metrics.jsonl, TensorBoard events, confusion.png, per_subject.png, curves.png,
checkpoints/. The same command resumes an interrupted run. With --protocol=all nobody is tested:
there is no score, and only config.json, results.json, metrics.jsonl, TensorBoard events, curves.png
and checkpoints/ are written; export.py makes a model folder of it.
"""

import pathlib

import cli
import flags

from ma2mi_jax.evaluation import cautions, intervals, outcome, predictions
from ma2mi_jax.reproduction import paper
from ma2mi_jax.runs import lock, processes
from ma2mi_jax.training import finetuning_run, run_files
from ma2mi_jax.training.run_config import FinetuneRun

SCORES = ("accuracy", "uf1", "uar")


def main(argv):
    run = flags.parse(FinetuneRun, argv, __doc__)
    run_files.check(run)
    listener = cli.join(argv, apart=True)
    with lock.alone(run.folder, "run"):
        cli.keep_compiled_programs()
        others = []

        def read_other(clips, classes):  # it may fail: then before the training, not after it
            if run.compare:
                others.append(predictions.read_other(pathlib.Path(run.compare), clips, classes))

        trained = finetuning_run.carry_out(run, listener, check=read_other)
        if processes.is_first():
            found = outcome.write(trained, *others)
            if "no_score" in found:
                print_unscored(found, run.folder)
            else:
                print_results(found, run.folder)


def print_results(found, path) -> None:
    """The table: ours, the paper's row beside it, and the oracle apart."""

    def row(name, scores, note=""):
        cells = ("–" if scores.get(k) is None else f"{scores[k]:.4f}" for k in SCORES)
        return (name, *cells, note)

    seeds = found["seeds"]["seeds"]
    spread = [found["seeds"][k] for k in SCORES]
    epochs = {"last": "last epoch", "inner": "epoch chosen on inner subjects"}
    rows = [row(f"{epochs[found['epoch_reported']]}, pooled", found, f"N = {found['n']}")]
    if len(seeds) > 1:
        stds = (f"{v['std']:.4f}" for v in spread)
        rows.append(("± over seeds", *stds, f"{len(seeds)} seeds"))
    spans = ("{:.2f}–{:.2f}".format(*v["interval95"]) for v in spread)
    one = "; one training, held fixed" if spread[0]["over"] == "subjects" else ""
    label = f"interval: {intervals.labels(found['seeds'], found['subjects'])}"
    rows.append((label, *spans, f"over {spread[0]['over']}{one}"))
    for name, scores in found.get("per_dataset", {}).items():
        rows.append(row(f"  {name}", scores, f"N = {scores['n']}"))
    target = found["target"]
    if target in paper.DATASETS and not found["protocol"].startswith("cross"):
        percent, uf1 = paper.ABLATIONS[1]["latent"][target]
        theirs = {"accuracy": percent / 100, "uf1": uf1}
        rows.append(row("the paper, MA2MI", theirs, f"N = {paper.N[target]}"))
    rows.append(row("oracle epoch", found["oracle"], "chosen on the test subject: no result"))
    sheet = f"; {found['annotations']}" if found["annotations"] else ""
    caption = f"{found['protocol']}, from {found['init']}, seeds {seeds}{sheet}"
    cli.table(target, ("", "accuracy", "UF1", "UAR", ""), rows, caption)

    per_class = []
    for name, v in found["per_class"].items():
        recall = "–" if v["recall"] is None else f"{v['recall']:.3f}"
        per_class.append((name, v["n"], f"{v['f1']:.3f}", recall))
    cli.table("classes", ("", "n", "F1", "recall"), per_class)
    if "compare" in found:
        print_comparison(found)
    cli.print_absent(found)
    if told := cautions.few_subjects(found["subjects"]):
        cli.say(told)
    print_end(found, path)


def print_unscored(found, path) -> None:
    """What was trained on all subjects; its one accuracy is called training accuracy."""
    trained = zip(found["seeds"]["seeds"], found["training_accuracy"], strict=True)
    rows = [(f"seed {seed}", f"{accuracy:.4f}") for seed, accuracy in trained]
    counts = ", ".join(f"{name} {n}" for name, n in found["clips_of"].items())
    caption = f"{found['n']} clips of {found['subjects']} subjects ({counts}), from {found['init']}"
    cli.table(found["target"], ("all subjects", "training accuracy"), rows, caption)
    cli.say(found["no_score"])
    print_end(found, path)


def print_end(found, path) -> None:
    """What was set aside, and where the run lies."""
    aside = [(each["id"], each["reason"]) for each in found["set_aside"]]
    cli.print_set_aside(aside, run_files.RESULTS["finetune"])
    cli.say(f"run: {path}")


def print_comparison(found) -> None:
    """Ours beside the other run's, over the same subjects."""
    other = found["compare"]
    rows = []
    for name in SCORES:
        v = other[name]
        interval = "{:+z.2f} to {:+z.2f}".format(*v["interval95"])
        ours, theirs = f"{found[name]:.4f}", f"{v['theirs']:.4f}"
        p = intervals.shown_p(v["p"])
        rows.append((name, ours, theirs, f"{v['difference']:+z.4f}", interval, p))
    ours, theirs = pathlib.Path(found["init"]).name, pathlib.Path(other["run"]).name
    label = f"interval: {intervals.labels(other, found['subjects'])}"
    columns = ("", f"from {ours}", theirs, "difference", label, "p")
    caption = f"{found['subjects']} subjects, N = {found['n']}; interval and p over subjects"
    if other["accuracy"]["over"] == "subjects":
        caption += (
            " alone: one of the runs has one seed, so the trainings are held fixed, and others may "
            "land outside the interval"
        )
    else:
        held = "" if found["init"] == "none" else "; the pre-training is held fixed"
        caption += f" and seeds of fine-tuning{held}"
    cli.table("the same subjects, two runs", columns, rows, caption)


if __name__ == "__main__":
    cli.run(main)
