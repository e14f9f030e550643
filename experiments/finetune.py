"""Fine-tune MIACNet on onset/apex pairs, all folds at once, and score the pooled predictions (paper §3.2, §4.2).

  python experiments/finetune.py --target=synthetic --init=runs/synthetic-tiny-0
  python experiments/finetune.py --target=casme2 --data-root=CASME2 --init=none --preset=paper
  python experiments/finetune.py --target=casme2 --protocol=cross --test-target=samm --init=runs/dfew-paper-0

Writes into the run's folder: config.json, results.json, predictions.csv, folds.csv, confusion.png, per_subject.png, curves.png,
checkpoints/. The same command resumes a run that was interrupted.
"""

import dataclasses
import math
import pathlib
import time

import cli
import data
import numpy as np
import targets

from ma2mi_jax import files
from ma2mi_jax.clips.clip import fingerprint
from ma2mi_jax.datasets import registry
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import drawing
from ma2mi_jax.evaluation import predictions as results
from ma2mi_jax.models.architecture import PRESETS
from ma2mi_jax.models.miacnet import FUSIONS
from ma2mi_jax.models.weights import torchvision
from ma2mi_jax.reproduction import paper
from ma2mi_jax.runs import folder as runs
from ma2mi_jax.runs import lock
from ma2mi_jax.training import finetuning, pretraining
from ma2mi_jax.training import protocol as loso
from ma2mi_jax.training.members import device_mesh


def flags(argv):
    p = cli.parser(__doc__)
    data.add_flags(p, kinds=("target",))
    protocol = p.add_argument_group("protocol")
    protocol.add_argument(
        "--protocol",
        choices=("loso", "kfold", "cross"),
        help="leave one subject out; k folds of subjects; another dataset (by dataset)",
    )
    protocol.add_argument("--folds", type=cli.positive, help="k of kfold (5)")
    protocol.add_argument(
        "--folds-seed",
        type=cli.natural,
        default=0,
        help="of kfold and of what --select=inner holds out (0)",
    )
    protocol.add_argument(
        "--folds-file",
        help="CSV file subject,fold that gives the folds, such as the folds.csv of another run",
    )
    protocol.add_argument(
        "--test-target",
        choices=data.TARGETS,
        help="cross: the other dataset; the classes they share count",
    )
    protocol.add_argument("--test-root", help="cross: where it lies (default: as for --data-root)")
    protocol.add_argument(
        "--test-annotations", help="cross: its annotation sheet (default: found under its root)"
    )
    protocol.add_argument(
        "--select",
        choices=("last", "inner"),
        default="last",
        help="epoch that counts: last, or best on held-out training subjects (last)",
    )
    protocol.add_argument("--seeds", type=cli.positive, default=1, help="how many: 0, 1, ... (1)")
    network = p.add_argument_group("network")
    network.add_argument(
        "--init",
        default="none",
        help="a pre-training run's folder, a ResNet18's .safetensors, or none (none)",
    )
    network.add_argument(
        "--preset",
        choices=PRESETS,
        help="paper, small or tiny (paper); a pre-training run has its own",
    )
    network.add_argument("--fusion", choices=FUSIONS, help="(mul); a pre-training run has its own")
    network.add_argument(
        "--tune",
        choices=("both", "action", "position"),
        default="both",
        help="which encoder learns; Table 2 (both)",
    )
    network.add_argument(
        "--keep-reconstruction",
        action="store_true",
        help="add L_rec of onset → apex, with the run's DiT; Table 2",
    )
    network.add_argument(
        "--vae",
        default="stabilityai/sd-vae-ft-mse",
        help="autoencoder of --keep-reconstruction in latent space (stabilityai/sd-vae-ft-mse)",
    )
    training = p.add_argument_group("training")
    training.add_argument("--epochs", type=cli.positive, default=80, help="(80)")
    training.add_argument("--batch-size", type=cli.positive, default=16, help="(16)")
    training.add_argument(
        "--learning-rate",
        type=float,
        default=4e-4,
        help="at the start; falls to 1%% over the run (4e-4)",
    )
    training.add_argument("--weight-decay", type=float, default=0.1, help="of AdamW (0.1)")
    training.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the computation (auto)",
    )
    training.add_argument(
        "--fold-chunk", default="auto", help="fine-tunes that are trained at once (auto)"
    )
    output = p.add_argument_group("output")
    output.add_argument(
        "--run", type=pathlib.Path, help="folder (runs/<target>-<name of the init>)"
    )
    output.add_argument(
        "--compare",
        type=pathlib.Path,
        help="a finished run over the same clips: prints the paired difference to it",
    )
    output.add_argument(
        "--checkpoint-every",
        type=cli.positive,
        default=10,
        help="epochs after which a killed run can go on (10)",
    )
    output.add_argument("--overwrite", action="store_true", help="delete the run that is there")
    f = p.parse_args(argv)
    data.settle(f, f.test_target)
    f.protocol = f.protocol or (
        "cross" if f.test_target else registry.reader("target", f.target).protocol
    )
    if (f.protocol == "cross") != bool(f.test_target):
        raise UserError("--protocol=cross and --test-target go together: give both, or neither")
    for flag in ("test_root", "test_annotations"):
        if getattr(f, flag) and not f.test_target:
            raise UserError(
                f"--{flag.replace('_', '-')}={getattr(f, flag)}: of --test-target alone; give that too, or leave the flag out"
            )
    if f.folds and (f.protocol != "kfold" or f.folds_file):
        raise UserError(
            f"--folds={f.folds}: of --protocol=kfold alone, without --folds-file; give that, or leave the flag out"
        )
    f.folds = f.folds or 5
    if f.test_target == f.target:
        raise UserError(f"--test-target={f.test_target}: expected another dataset than --target")
    if f.protocol == "cross" and f.folds_file:
        raise UserError(
            "--folds-file: --protocol=cross has a single fold, all of --test-target; leave the flag out"
        )
    name = f"{f.target}-to-{f.test_target}" if f.test_target else f.target
    f.run = (
        f.run
        or pathlib.Path("runs")
        / f"{name}-from-{pathlib.Path(f.init).name.removesuffix('.safetensors')}"
    )
    if not (math.isfinite(f.learning_rate) and f.learning_rate > 0):
        raise UserError(f"--learning-rate={f.learning_rate}: expected a number > 0")
    runs.check_run(f.run, "results.json", f.overwrite)
    if f.compare:
        files.read_json(f.compare / "results.json")  # fail now, not after the clips are read
    if f.folds_file:
        targets.read_folds_file(pathlib.Path(f.folds_file))
    if f.batch_size < 2:
        raise UserError(
            f"--batch-size={f.batch_size}: expected at least 2, for BatchNorm takes its statistics over a batch"
        )
    if f.fold_chunk != "auto":
        try:
            f.fold_chunk = cli.positive(f.fold_chunk)
        except cli.argparse.ArgumentTypeError:
            raise UserError(
                f"--fold-chunk={f.fold_chunk}: expected auto or an integer >= 1"
            ) from None
    return f


def read_init(f):
    """What training starts from.

    Returns:
      The architecture; what of it is part of the run's identity; the pre-training's config, or None; and what `finetune.init` takes.
    """
    path = pathlib.Path(f.init)
    chosen = dataclasses.replace(PRESETS[f.preset or "paper"], fusion=f.fusion or "mul")
    if f.keep_reconstruction and (f.init == "none" or path.is_file()):
        raise UserError(
            "--keep-reconstruction: needs the DiT of a pre-training run; give its folder as --init"
        )
    if f.init == "none":
        return chosen, "none", None, None
    if path.is_file():
        params, batch_stats = torchvision.read_encoders(path, chosen)
        if f.tune != "both":
            cli.log(
                f"--tune={f.tune} with weights from a file: the frozen encoder's statistics are not those of such frames"
            )
        return chosen, torchvision.fingerprint(path), None, ({"miacnet": params}, batch_stats)
    if not path.is_dir():
        raise UserError(
            f"--init={f.init}: no such folder or file; expected a pre-training run (runs/...), a .safetensors file, or none"
        )
    record, state = targets.read_pretrained(path, "--init")
    config = pretraining.config_from_json(record["config"]["pretrain"])
    for flag, found, asked in (
        ("fusion", config.architecture.fusion, f.fusion),
        ("preset", preset_of(config.architecture), f.preset),
    ):
        if asked and asked != found:
            raise UserError(
                f"--{flag}={asked}: the run in --init was made with {flag} {found}; leave the flag out"
            )
    if f.keep_reconstruction and config.objective != "ma2mi":
        raise UserError(
            f"--keep-reconstruction: the run in --init was pre-trained by {config.objective}, which has no DiT; leave the flag out"
        )
    return config.architecture, record["config"], config, (state.params, state.batch_stats)


def shown_protocol(f):
    if f.test_target:
        return f"cross, tested on {f.test_target}"
    return f"the folds of {pathlib.Path(f.folds_file).name}" if f.folds_file else f.protocol


def preset_of(architecture):
    sizes = ("image_size", "width")
    return next(
        (
            n
            for n, p in PRESETS.items()
            if all(getattr(p, s) == getattr(architecture, s) for s in sizes)
        ),
        "of no name",
    )


def target_of(f, size):
    """The configuration entry that names the clips: see `data.read_target`."""
    target = data.entry(f, f.target, f.root, f.annotations, size)
    if f.protocol == "cross":
        target["test"] = data.entry(
            f, f.test_target, data.root(f.test_root, f.test_target), f.test_annotations, size
        )
    return target


def main(argv):
    f = flags(argv)
    with lock.alone(f.run, "run"):
        finetune_into(f)


def finetune_into(f):
    cli.keep_compiled_programs()

    # ---------------------------------------------------------------- network, data, run folder
    architecture, init, pretrained_config, pretrained = read_init(f)
    kept = pretrained_config if f.keep_reconstruction else None
    vae_params = None
    if kept and architecture.space == "latent":
        vae_params = targets.load_autoencoder(f.vae, init["data"].get("autoencoder"))
    target = target_of(f, architecture.image_size)
    source = data.read_target(target)
    for note in source.notes:
        cli.log(note)
    folds_file = str(pathlib.Path(f.folds_file).resolve()) if f.folds_file else None
    protocol = {
        "name": f.protocol,
        "k": f.folds,
        "seed": f.folds_seed,
        "folds_file": folds_file,
        "select": f.select,
    }
    if f.protocol == "cross":
        protocol |= {"train": f.target, "test": f.test_target}
    folds = targets.make_folds(protocol, source.clips)
    other = None
    if f.compare:  # which may fail: now, not after the training
        other = results.read_other(
            f.compare, [source.clips[i] for i in targets.tested_by(folds)], source.classes
        )
    seeds = list(range(f.seeds))
    members = targets.members_of(seeds, folds)
    config = finetuning.Config(
        architecture=architecture,
        classes=len(source.classes),
        tune=f.tune,
        reconstruction=kept,
        epochs=f.epochs,
        batch_size=f.batch_size,
        learning_rate=f.learning_rate,
        weight_decay=f.weight_decay,
        dtype=cli.precision(f.precision),
    )
    size, why = choose_chunk(f, config, len(members))
    identity = {"init": init, "target": target, "protocol": protocol, "seeds": seeds}
    identity |= {"clips": fingerprint(source.clips), "folds": targets.fold_of(source.clips, folds)}
    identity |= {"fold_chunk": size, "finetune": dataclasses.asdict(config)}
    resuming = runs.open_run(f.run, identity, "results.json", f.overwrite)
    targets.write_folds(f.run / "folds.csv", identity["folds"])
    parts = loso.chunks(members, size)
    cli.log(
        f"{len(source.clips)} clips of {len({c.subject for c in source.clips})} subjects, {len(folds)} folds x {len(seeds)} seeds, "
        f"{max(map(len, parts))} at once ({why}); from {f.init}, {config.dtype}"
        + (", resumed" if resuming else "")
    )

    # ---------------------------------------------------------------- train
    mesh = device_mesh()
    pairs, replaced = targets.load(source, architecture.image_size, mesh, vae_params)
    began = time.monotonic()
    labels = np.array([clip.label for clip in source.clips])
    counts = np.zeros(2, int)  # right, tested
    with cli.progress("fine-tuning", len(parts) * f.epochs) as advance:

        def on_epoch(chunk, epoch, history):
            last = epoch + 1 == f.epochs
            done = sum(map(len, parts[: chunk + last]))
            note = f"{done}/{len(members)} folds done, {len(parts[chunk])} at epoch {epoch + 1}/{f.epochs}: "
            note += f"loss {history.loss[epoch].mean():.3f}, training accuracy {history.accuracy[epoch].mean():.3f}"
            advance(completed=chunk * f.epochs + epoch + 1, note=note)
            if not cli.err.is_terminal and (last or epoch % max(1, f.epochs // 4) == 0):
                cli.log(note)
            if last:
                log_folds(parts[chunk], history, f.select, labels, counts)

        histories = loso.train(
            config,
            parts,
            pretrained,
            pairs,
            f.run,
            on_epoch,
            select=f.select,
            checkpoint_every=f.checkpoint_every,
            mesh=mesh,
        )
    seconds = time.monotonic() - began

    # ---------------------------------------------------------------- results
    tests = loso.of_members(
        parts, histories
    )  # of each chunk and member (epochs, test clips, classes)
    chosen = [loso.reported(history, f.select) for history in histories]
    counted = [
        [p[epoch] for p, epoch in zip(*chunk, strict=True)]
        for chunk in zip(tests, chosen, strict=True)
    ]
    predictions = targets.predictions_of(
        source.clips, folds, seeds, loso.pool(parts, counted, seeds, len(source.clips))
    )
    every_epoch = targets.predictions_of(
        source.clips, folds, seeds, loso.pool(parts, tests, seeds, len(source.clips))
    )
    found = results.summary(predictions, source.classes)
    found |= {
        "oracle": results.oracle(predictions, every_epoch.classes, len(source.classes)),
        "target": f.target,
        "init": f.init,
        "protocol": shown_protocol(f),
        "members": [(m.seed, m.fold.name) for m in members],
        "annotations": source.annotations,
        "epoch_reported": f.select,
        "epochs_chosen": np.concatenate(chosen) + 1,
        "set_aside": [dataclasses.asdict(s) for s in source.set_aside],
        "notes": source.notes,
        "repairs": [dataclasses.asdict(r) for r in source.repairs],
        "frames_replaced": [source.clips[i].id for i in replaced],
        "seconds": round(seconds, 1),
        "versions": runs.versions(),
    }
    if other:
        found["compare"] = {"run": str(f.compare)} | results.compare(
            predictions, other, len(source.classes)
        )
    results.write_predictions(f.run / "predictions.csv", predictions, source.classes)
    loss, accuracy = (
        np.concatenate([getattr(h, name) for h in histories], axis=1)
        for name in ("loss", "accuracy")
    )
    tested = [
        (p.argmax(-1) == labels[m.fold.test]).mean(-1)
        for chunk in zip(tests, parts, strict=True)
        for p, m in zip(*chunk, strict=True)
    ]
    drawing.finetuning_curves(f.run / "curves.png", loss, accuracy, np.stack(tested, axis=1))
    title = f"{f.target}, {found['protocol']}, from {pathlib.Path(f.init).name}: N = {found['n']}, {len(seeds)} seed(s)\n"
    title += f"accuracy {found['accuracy']:.4f}, UF1 {found['uf1']:.4f}"
    summed = f"\ncounts summed over {len(seeds)} seeds" if len(seeds) > 1 else ""
    drawing.confusion(f.run / "confusion.png", found["confusion"], source.classes, title + summed)
    drawing.per_subject(f.run / "per_subject.png", found["per_subject"], title)
    files.write_json(f.run / "results.json", found)
    print_results(found, f.run)


def log_folds(members, history, select, labels, counts):
    """A line for each finished fold: right of tested, and of all so far, to which `counts` adds up."""
    (tests,) = loso.of_members([members], [history])
    for member, outputs, epoch in zip(members, tests, loso.reported(history, select), strict=True):
        test = member.fold.test
        right = int(np.sum(outputs[epoch].argmax(-1) == labels[test]))
        counts += right, len(test)
        so_far = f"so far {counts[0]} of {counts[1]}, {counts[0] / counts[1]:.3f}"
        cli.log(
            f"  seed {member.seed}  {member.fold.name:<16} {right:>3} of {len(test):>3} right   {so_far}"
        )


def choose_chunk(f, config, members):
    if f.fold_chunk != "auto":
        return min(f.fold_chunk, members), "as asked"
    earlier = f.run / "config.json"
    if (
        earlier.exists() and not f.overwrite
    ):  # a resumed run keeps its chunks, whatever device it goes on with
        stored = files.read_json(earlier)["config"].get("fold_chunk")
        if stored:
            return stored, "as the run began"
    return loso.chunk_size(config, members)


def print_results(found, run):
    """The table: ours, the paper's row beside it, and the oracle apart."""

    def row(name, scores, note=""):
        return (
            name,
            *(
                ("–" if scores.get(k) is None else f"{scores[k]:.4f}")
                for k in ("accuracy", "uf1", "uar")
            ),
            note,
        )

    spread = {k: found["seeds"][k] for k in ("accuracy", "uf1", "uar")}
    epoch = {"last": "last epoch", "inner": "epoch chosen on inner subjects"}[
        found["epoch_reported"]
    ]
    rows = [row(f"{epoch}, pooled", found, f"N = {found['n']}")]
    if len(found["seeds"]["seeds"]) > 1:
        rows.append(
            (
                "± over seeds",
                *(f"{v['std']:.4f}" for v in spread.values()),
                f"{len(found['seeds']['seeds'])} seeds",
            )
        )
    rows.append(
        (
            "95 % by subjects",
            *("{:.2f}–{:.2f}".format(*v["interval95"]) for v in spread.values()),
            f"{found['subjects']} subjects",
        )
    )
    rows += [
        row(f"  {name}", scores, f"N = {scores['n']}")
        for name, scores in found.get("per_dataset", {}).items()
    ]
    if found["target"] in paper.DATASETS and not found["protocol"].startswith("cross"):
        percent, uf1 = paper.ABLATIONS[1]["latent"][found["target"]]
        rows.append(
            row(
                "the paper, MA2MI",
                {"accuracy": percent / 100, "uf1": uf1},
                f"N = {paper.N[found['target']]}",
            )
        )
    rows.append(row("oracle epoch", found["oracle"], "chosen on the test subject: no result"))
    sheet = f"; {found['annotations']}" if found["annotations"] else ""
    caption = f"{found['protocol']}, from {found['init']}, seeds {found['seeds']['seeds']}{sheet}"
    cli.table(f"{found['target']}", ("", "accuracy", "UF1", "UAR", ""), rows, caption)
    per_class = [
        (name, v["n"], f"{v['f1']:.3f}", "–" if v["recall"] is None else f"{v['recall']:.3f}")
        for name, v in found["per_class"].items()
    ]
    cli.table("classes", ("", "n", "F1", "recall"), per_class)
    if "compare" in found:
        print_comparison(found)
    targets.print_absent(found)
    cli.out.print(f"run: {run}", markup=False, soft_wrap=True)


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
            f"{v['p']:.4f}",
        )
        for k, v in other.items()
        if k != "run"
    ]
    caption = f"{found['subjects']} subjects, N = {found['n']}; interval and p (exchange test) over subjects"
    columns = (
        "",
        f"from {pathlib.Path(found['init']).name}",
        f"{pathlib.Path(other['run']).name}",
        "difference",
        "95 % interval",
        "p",
    )
    cli.table("the same subjects, two runs", columns, rows, caption)


if __name__ == "__main__":
    cli.run(main)
