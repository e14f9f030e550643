"""Fine-tune MIACNet on onset/apex pairs, all folds at once, and score the pooled predictions (paper §3.2, §4.2).

  python experiments/finetune.py --target=synthetic --init=runs/synthetic-tiny-0
  python experiments/finetune.py --target=casme2 --data-root=CASME2 --init=none --preset=paper

Writes into the run's folder: config.json, results.json, predictions.csv, confusion.png, curves.png, checkpoints/.
The same command resumes a run that was interrupted.
"""

import dataclasses
import math
import pathlib
import time

import cli
import jax
import numpy as np
import targets
from data import TARGETS, add_detector

from ma2mi_jax import checkpoint, finetune, loso, pretrain, report, results, runs
from ma2mi_jax.architecture import PRESETS, Architecture
from ma2mi_jax.errors import UserError

PROTOCOLS = {"mmew": "kfold"}  # leave-one-subject-out for the others


def flags(argv):
    p = cli.parser(__doc__)
    data = p.add_argument_group("data")
    data.add_argument("--target", required=True, choices=TARGETS, help="the micro-expression clips")
    data.add_argument("--data-root", help="where they lie (default: $MA2MI_DATA/<target>, else data/<target>)")
    data.add_argument("--annotations", help="the annotation sheet (default: found under the root)")
    add_detector(data)
    data.add_argument("--protocol", choices=("loso", "kfold"), help="leave one subject out, or k folds over subjects (by dataset)")
    data.add_argument("--folds", type=cli.positive, default=5, help="k of kfold (5)")
    data.add_argument("--folds-file", help="CSV file subject,fold that gives the folds")
    data.add_argument("--subjects", type=cli.positive, default=12, help="synthetic: number of subjects (12)")
    data.add_argument("--clips-per-subject", type=cli.positive, default=14, help="synthetic: clips of each (14)")
    data.add_argument("--amplitude", type=cli.fraction, default=0.3, help="synthetic: how much of a full expression a clip reaches (0.3)")
    data.add_argument("--data-seed", type=cli.natural, default=0, help="synthetic: seed of the drawn clips (0)")
    network = p.add_argument_group("network")
    network.add_argument("--init", default="none", help="a pre-training run's folder, or none (none)")
    network.add_argument("--preset", choices=PRESETS, help="with --init=none: paper, small or tiny (paper); else that of the run")
    network.add_argument("--fusion", choices=("mul", "add", "concat", "action"), help="with --init=none (mul); else that of the run")
    network.add_argument("--tune", choices=("both", "action", "position"), default="both", help="which encoder learns; Table 2 (both)")
    training = p.add_argument_group("training")
    training.add_argument("--epochs", type=cli.positive, default=80, help="(80)")
    training.add_argument("--batch-size", type=cli.positive, default=16, help="(16)")
    training.add_argument("--learning-rate", type=float, default=4e-4, help="at the start; falls to 1%% over the run (4e-4)")
    training.add_argument("--weight-decay", type=float, default=0.1, help="of AdamW (0.1)")
    training.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of the computation (auto)")
    training.add_argument("--seeds", type=cli.positive, default=1, help="how many: 0, 1, ... (1)")
    training.add_argument("--fold-chunk", default="auto", help="fine-tunes that are trained at once (auto)")
    output = p.add_argument_group("output")
    output.add_argument("--run", type=pathlib.Path, help="folder (runs/<target>-<name of the init>)")
    output.add_argument("--compare", type=pathlib.Path, help="a finished run over the same clips: prints the paired difference to it")
    output.add_argument("--overwrite", action="store_true", help="delete the run that is there")
    f = p.parse_args(argv)
    f.run = f.run or pathlib.Path("runs") / f"{f.target}-from-{pathlib.Path(f.init).name}"
    if not (math.isfinite(f.learning_rate) and f.learning_rate > 0):
        raise UserError(f"--learning-rate={f.learning_rate}: expected a number > 0")
    runs.check_run(f.run, "results.json", f.overwrite)
    if f.compare:
        runs.read_json(f.compare / "results.json")  # fail now, not after the training
    if f.fold_chunk != "auto":
        try:
            f.fold_chunk = cli.positive(f.fold_chunk)
        except cli.argparse.ArgumentTypeError:
            raise UserError(f"--fold-chunk={f.fold_chunk}: expected auto or an integer >= 1") from None
    return f


def read_init(f) -> tuple[Architecture, dict | None]:
    """The architecture, and the pre-training run's record of itself (None for --init=none)."""
    if f.init == "none":
        return dataclasses.replace(PRESETS[f.preset or "paper"], fusion=f.fusion or "mul"), None
    run = pathlib.Path(f.init)
    if not run.is_dir():
        raise UserError(f"--init={f.init}: no such folder; expected a pre-training run (runs/...) or none")
    record = runs.read_json(run / "config.json")
    if "pretrain" not in record["config"]:
        raise UserError(f"--init={f.init}: not a pre-training run; expected a folder made by experiments/pretrain.py")
    if not (run / "summary.json").exists():
        raise UserError(
            f"--init={f.init}: that pre-training is not finished; run its command again to finish it: python {record['command']}"
        )
    config = pretrain.config_from_json(record["config"]["pretrain"])
    for flag, found, asked in (("fusion", config.architecture.fusion, f.fusion), ("preset", preset_of(config.architecture), f.preset)):
        if asked and asked != found:
            raise UserError(f"--{flag}={asked}: the run in --init was made with {flag} {found}; leave the flag out")
    return config.architecture, record


def preset_of(architecture):
    sizes = ("image_size", "width")
    return next((n for n, p in PRESETS.items() if all(getattr(p, s) == getattr(architecture, s) for s in sizes)), "of no name")


def load_pretrained(run: pathlib.Path, record):
    """MIACNet's (params, batch_stats) from a pre-training run's last checkpoint."""
    config = pretrain.config_from_json(record["config"]["pretrain"])
    shapes = jax.eval_shape(lambda: pretrain.init(config, jax.random.key(0)))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
    with checkpoint.manager(run / "checkpoints") as checkpoints:
        state = checkpoint.restore(checkpoints, shapes)
    return state.params["miacnet"], state.batch_stats


def main(argv):
    f = flags(argv)
    cli.keep_compiled_programs()

    # ---------------------------------------------------------------- network, data, run folder
    architecture, record = read_init(f)
    root = cli.data_root(f.data_root, f.target)
    annotations = str(pathlib.Path(f.annotations).resolve()) if f.annotations else None
    target = {"name": f.target, "data_root": str(root.resolve()), "annotations": annotations, "size": architecture.image_size}
    target |= {"detector": f.detector, "detector_model": f.detector_model}
    target |= {"subjects": f.subjects, "clips_per_subject": f.clips_per_subject, "amplitude": f.amplitude, "data_seed": f.data_seed}
    source = targets.read_target(target)
    for note in source.notes:
        cli.log(note)
    folds_file = str(pathlib.Path(f.folds_file).resolve()) if f.folds_file else None
    protocol = {"name": f.protocol or PROTOCOLS.get(f.target, "loso"), "k": f.folds, "seed": 0, "folds_file": folds_file}
    folds = targets.make_folds(protocol, source.clips)
    seeds = list(range(f.seeds))
    members = targets.members_of(seeds, folds)
    config = finetune.Config(
        architecture=architecture,
        classes=len(source.classes),
        tune=f.tune,
        epochs=f.epochs,
        batch_size=f.batch_size,
        learning_rate=f.learning_rate,
        weight_decay=f.weight_decay,
        dtype=cli.precision(f.precision),
    )
    size, why = choose_chunk(f, config, len(members))
    identity = {"init": f.init if record is None else record["config"], "target": target, "protocol": protocol, "seeds": seeds}
    identity |= {"fold_chunk": size, "finetune": dataclasses.asdict(config)}
    resuming = runs.open_run(f.run, identity, "results.json", f.overwrite)
    parts = loso.chunks(members, size)
    cli.log(
        f"{len(source.clips)} clips of {len({c.subject for c in source.clips})} subjects, {len(folds)} folds x {len(seeds)} seeds, "
        f"{max(map(len, parts))} at once ({why}); from {f.init}, {config.dtype}" + (", resumed" if resuming else "")
    )

    # ---------------------------------------------------------------- train
    data, replaced = targets.load(source, architecture.image_size)
    pretrained = None if record is None else load_pretrained(pathlib.Path(f.init), record)
    began = time.monotonic()
    with cli.progress("fine-tuning", len(parts) * f.epochs) as advance:

        def on_epoch(chunk, epoch, loss, accuracy):
            note = f"chunk {chunk + 1}/{len(parts)} epoch {epoch + 1}/{f.epochs}: "
            note += f"loss {loss.mean():.3f}, training accuracy {accuracy.mean():.3f}"
            advance(completed=chunk * f.epochs + epoch + 1, note=note)
            if not cli.err.is_terminal and (epoch + 1 == f.epochs or epoch % max(1, f.epochs // 4) == 0):
                cli.log(note)

        histories = loso.train(config, parts, pretrained, data, f.run, on_epoch)
    seconds = time.monotonic() - began

    # ---------------------------------------------------------------- results
    every_epoch = loso.pool(parts, [h.probabilities for h in histories], seeds, len(source.clips))  # (epochs, S, N, classes)
    predictions = targets.predictions_of(source.clips, folds, seeds, every_epoch[-1])
    found = results.summary(predictions, source.classes)
    found |= {
        "oracle": results.oracle(predictions, every_epoch.argmax(-1), len(source.classes)),
        "target": f.target,
        "init": f.init,
        "protocol": protocol["name"],
        "annotations": source.annotations,
        "epoch_reported": "last",
        "set_aside": [dataclasses.asdict(s) for s in source.set_aside],
        "notes": source.notes,
        "repairs": [dataclasses.asdict(r) for r in source.repairs],
        "frames_replaced": [source.clips[i].id for i in replaced],
        "seconds": round(seconds, 1),
        "versions": runs.versions(),
    }
    if f.compare:
        found["compare"] = results.compare(predictions, f.compare, source.classes)
    results.write_predictions(f.run / "predictions.csv", predictions, source.classes)
    loss, accuracy = (np.concatenate([getattr(h, name) for h in histories], axis=1) for name in ("loss", "accuracy"))
    tested = [
        (p.argmax(-1) == predictions.labels[m.fold.test]).mean(-1)
        for history, part in zip(histories, parts, strict=True)
        for p, m in zip(history.probabilities, part, strict=True)
    ]
    report.finetuning_curves(f.run / "curves.png", loss, accuracy, np.stack(tested, axis=1))
    title = f"{f.target}, {protocol['name']}, from {pathlib.Path(f.init).name}: N = {found['n']}, {len(seeds)} seed(s)\n"
    title += f"accuracy {found['accuracy']:.4f}, UF1 {found['uf1']:.4f}"
    report.confusion(f.run / "confusion.png", found["confusion"], source.classes, title)
    runs.write_json(f.run / "results.json", found)
    print_results(found, f.run)


def choose_chunk(f, config, members):
    if f.fold_chunk != "auto":
        return min(f.fold_chunk, members), "as asked"
    earlier = f.run / "config.json"
    if earlier.exists() and not f.overwrite:  # a resumed run keeps its chunks, whatever device it goes on with
        stored = runs.read_json(earlier)["config"].get("fold_chunk")
        if stored:
            return stored, "as the run began"
    return loso.chunk_size(config, members)


def print_results(found, run):
    """The table: ours, the paper's row beside it, and the oracle apart."""

    def row(name, scores, note=""):
        return (name, *(("–" if scores.get(k) is None else f"{scores[k]:.4f}") for k in ("accuracy", "uf1", "uar")), note)

    spread = {k: found["seeds"][k] for k in ("accuracy", "uf1", "uar")}
    rows = [row("last epoch, pooled", found, f"N = {found['n']}")]
    if len(found["seeds"]["seeds"]) > 1:
        rows.append(("± over seeds", *(f"{v['std']:.4f}" for v in spread.values()), f"{len(found['seeds']['seeds'])} seeds"))
    rows.append(("95 % by subjects", *("{:.2f}–{:.2f}".format(*v["interval95"]) for v in spread.values()), f"{found['subjects']} subjects"))
    if found["target"] in report.PAPER:
        n, accuracy, uf1 = report.PAPER[found["target"]]
        rows.append(row("the paper, MA2MI", {"accuracy": accuracy, "uf1": uf1}, f"N = {n}"))
    rows.append(row("oracle epoch", found["oracle"], "chosen on the test subject: no result"))
    sheet = f"; {found['annotations']}" if found["annotations"] else ""
    caption = f"{found['protocol']}, from {found['init']}, seeds {found['seeds']['seeds']}{sheet}"
    cli.table(f"{found['target']}", ("", "accuracy", "UF1", "UAR", ""), rows, caption)
    per_class = [
        (name, v["n"], f"{v['f1']:.3f}", "–" if v["recall"] is None else f"{v['recall']:.3f}") for name, v in found["per_class"].items()
    ]
    cli.table("classes", ("", "n", "F1", "recall"), per_class)
    if "compare" in found:
        print_comparison(found)
    for name in found["absent_classes"]:
        cli.out.print(f"{name}: neither labelled nor predicted; it counts as 0 in UF1")
    cli.out.print(f"run: {run}", soft_wrap=True)


def print_comparison(found):
    """Ours beside the other run's, over the same subjects."""
    other = found["compare"]
    rows = [
        (
            k,
            f"{found[k]:.4f}",
            f"{v['theirs']:.4f}",
            f"{v['difference']:+.4f}",
            "{:+.2f} to {:+.2f}".format(*v["interval95"]),
            f"{v['p']:.3f}",
        )
        for k, v in other.items()
        if k != "run"
    ]
    caption = f"{found['subjects']} subjects, N = {found['n']}; interval and p (exchange test) over subjects"
    columns = ("", f"from {pathlib.Path(found['init']).name}", f"{pathlib.Path(other['run']).name}", "difference", "95 % interval", "p")
    cli.table("the same subjects, two runs", columns, rows, caption)


if __name__ == "__main__":
    cli.run(main)
