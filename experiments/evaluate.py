"""Reload every fold's checkpoint of a fine-tuning run, predict again, and compare with what the run wrote.

  python experiments/evaluate.py --run=runs/synthetic-from-none

Exit code 0 if every prediction agrees, 1 if not.
"""

import pathlib

import cli
import targets

from ma2mi_jax import finetune, loso, results, runs
from ma2mi_jax.architecture import Architecture
from ma2mi_jax.errors import UserError


def main(argv):
    p = cli.parser(__doc__)
    p.add_argument("--run", type=pathlib.Path, required=True, help="folder of a finished experiments/finetune.py")
    f = p.parse_args(argv)
    cli.keep_compiled_programs()

    record = runs.read_json(f.run / "config.json")["config"]
    if "finetune" not in record:
        raise UserError(f"--run={f.run}: not a fine-tuning run; expected a folder made by experiments/finetune.py")
    written = runs.read_json(f.run / "results.json")
    before = results.read_predictions(f.run / "predictions.csv")
    config = finetune.Config(**record["finetune"] | {"architecture": Architecture(**record["finetune"]["architecture"])})
    source = targets.read_target(record["target"])
    folds = targets.make_folds(record["protocol"], source.clips)
    parts = loso.chunks(targets.members_of(record["seeds"], folds), record["fold_chunk"])
    data, _ = targets.load(source, config.architecture.image_size)
    with cli.progress("evaluating", len(parts)) as advance:
        tests = loso.reload(config, parts, data, f.run, lambda _: advance())
    probabilities = loso.pool(parts, tests, record["seeds"], len(source.clips))
    predictions = targets.predictions_of(source.clips, folds, record["seeds"], probabilities)
    found = results.summary(predictions, source.classes)

    differing, largest = [], 0.0
    for seed, rows in zip(predictions.seeds, probabilities, strict=True):
        for clip, now in zip(source.clips, rows, strict=True):
            prediction, then = before.pop((clip.id, seed), (None, None))
            if prediction != source.classes[now.argmax()]:
                differing.append((clip.id, seed, prediction or "absent", source.classes[now.argmax()]))
            if then is not None:
                largest = max(largest, float(abs(now - then).max()))
    differing += [(clip, seed, prediction, "absent") for (clip, seed), (prediction, _) in before.items()]

    rows = [(k, f"{written[k]:.4f}", f"{found[k]:.4f}") for k in ("accuracy", "uf1", "uar")]
    total = probabilities.shape[0] * probabilities.shape[1]
    caption = f"{total} predictions, {len(differing)} differ; probabilities differ by at most {largest:.1e} (written with 6 digits)"
    cli.table(f"{f.run}", ("", "written", "reloaded"), rows, caption)
    if differing:
        cli.table("differing predictions", ("clip", "seed", "written", "reloaded"), differing[:20])
        return 1
    cli.out.print("evaluation agrees with the run")
    return 0


if __name__ == "__main__":
    cli.run(main)
