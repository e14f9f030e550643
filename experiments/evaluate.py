"""Reload every fold's checkpoint of a fine-tuning run, predict again, and compare with what the run wrote; or export encoders.

  python experiments/evaluate.py --run=runs/synthetic-from-none
  python experiments/evaluate.py --run=runs/synthetic-from-none --export=encoders     # for PyTorch: load_file, load_state_dict

Exit code 0 if every prediction agrees, 1 if not. With --export nothing is predicted: each encoder of each fold, or the two of a
pre-training run, are written as safetensors under torchvision's ResNet18 names.
"""

import pathlib

import cli
import data
import targets

from ma2mi_jax import files
from ma2mi_jax.evaluation import predictions as results
from ma2mi_jax.models.weights import torchvision
from ma2mi_jax.training import protocol as loso
from ma2mi_jax.training.members import predict_clips


def export(out, name, params, batch_stats):
    """Writes the encoders of one MIACNet, <name>_action_encoder.safetensors and <name>_position_encoder.safetensors."""
    for encoder in params:
        path = out / f"{name}_{encoder}.safetensors"
        torchvision.write(path, params[encoder], batch_stats[encoder], encoder)
        cli.out.print(str(path), markup=False, soft_wrap=True)


def by_clip(predictions):
    """(clip, seed) -> probabilities."""
    ids = [clip.id for clip in predictions.clips]
    return {
        (clip, seed): p
        for seed, rows in zip(predictions.seeds, predictions.probabilities, strict=True)
        for clip, p in zip(ids, rows, strict=True)
    }


def main(argv):
    p = cli.parser(__doc__)
    p.add_argument(
        "--run",
        type=pathlib.Path,
        required=True,
        help="folder of a finished experiments/finetune.py",
    )
    p.add_argument(
        "--export",
        type=pathlib.Path,
        metavar="DIR",
        help="write the encoders there, as safetensors for torchvision's ResNet18",
    )
    f = p.parse_args(argv)
    cli.keep_compiled_programs()

    if f.export and "pretrain" in files.read_json(f.run / "config.json")["config"]:
        _, state = targets.read_pretrained(f.run)
        export(f.export, "pretrained", state.params["miacnet"], state.batch_stats)
        return 0
    run = targets.read_run(f.run)
    if f.export:
        for (seed, fold), params, batch_stats in targets.saved_members(run):
            export(f.export, f"seed{seed}-{fold.replace('/', '-')}", params["miacnet"], batch_stats)
        return 0
    written = files.read_json(f.run / "results.json")
    before = by_clip(results.read_predictions(f.run / "predictions.csv", run.classes))
    record, config = run.record, run.config
    source = data.read_target(record["target"])
    folds = targets.make_folds(record["protocol"], source.clips)
    parts = loso.chunks(targets.members_of(record["seeds"], folds), record["fold_chunk"])
    loaded, _ = targets.load(source, config.architecture.image_size)
    tests = []
    with cli.progress("evaluating", len(parts)) as advance:
        for members, states in zip(parts, loso.saved(config, parts, f.run), strict=True):
            tests.append(predict_clips(config, states, loaded, [m.fold.test for m in members]))
            advance()
    predictions = targets.predictions_of(
        source.clips,
        folds,
        record["seeds"],
        loso.pool(parts, tests, record["seeds"], len(source.clips)),
    )
    found = results.summary(predictions, source.classes)

    after = by_clip(predictions)
    name = lambda p: "absent" if p is None else run.classes[p.argmax()]  # noqa: E731
    pairs = [
        (*key, before.get(key), after.get(key)) for key in sorted(before.keys() | after.keys())
    ]
    differing = [
        (clip, seed, name(was), name(now))
        for clip, seed, was, now in pairs
        if name(was) != name(now)
    ]
    largest = max(
        (
            float(abs(now - was).max())
            for *_, was, now in pairs
            if was is not None and now is not None
        ),
        default=0.0,
    )

    rows = [(k, f"{written[k]:.4f}", f"{found[k]:.4f}") for k in ("accuracy", "uf1", "uar")]
    total = predictions.classes.size
    caption = f"{total} predictions, {len(differing)} differ; probabilities differ by at most {largest:.1e} (written with 6 digits)"
    cli.table(f"{f.run}", ("", "written", "reloaded"), rows, caption)
    targets.print_absent(found)
    if differing:
        cli.table("differing predictions", ("clip", "seed", "written", "reloaded"), differing[:20])
        return 1
    cli.out.print("evaluation agrees with the run")
    return 0


if __name__ == "__main__":
    cli.run(main)
