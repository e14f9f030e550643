"""Reload a fine-tuning run, predict again, and compare with what it wrote; or export encoders.

  python experiments/evaluate.py --run=runs/synthetic-from-none
  python experiments/evaluate.py --run=runs/casme2-from-dfew-paper-0 --data-root=/new/place/CASME2
  python experiments/evaluate.py --run=runs/synthetic-from-none --export=encoders

Exit code 0 if every prediction agrees, 1 if not. With --export nothing is predicted: each encoder
of each fold, or the two of a pre-training run, are written as safetensors under torchvision's
ResNet18 names (PyTorch: load_file, load_state_dict).
"""

import pathlib
from typing import TypedDict

import cli
import flags

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import outcome, predictions
from ma2mi_jax.models.weights import torchvision
from ma2mi_jax.training import finished, run_files
from ma2mi_jax.training.finished import Finetuned


class Scores(TypedDict):
    accuracy: float
    uf1: float
    uar: float


SHOWN = 20  # differing predictions


def parsed(argv):
    p = cli.parser(__doc__)
    help = "folder of a finished experiments/finetune.py"
    p.add_argument("--run", type=pathlib.Path, required=True, help=help)
    help = "where the dataset lies now (where the run read it)"
    p.add_argument("--data-root", help=f"{help}; of several {flags.PLACES['root']}")
    help = "write the encoders there, as safetensors for torchvision's ResNet18"
    p.add_argument("--export", type=pathlib.Path, metavar="DIR", help=help)
    return p.parse_args(argv)


def main(argv):
    f = parsed(argv)
    cli.keep_compiled_programs()
    if f.export:
        export(f.run, f.export)
        return 0

    run = finished.read_finetuned(f.run)
    if "no_score" in run_files.read_results(f.run, "finetune"):
        raise UserError(
            "[run={run}]: trained on all subjects, so that nothing was tested; give a run that "
            "leaves subjects out",
            run=f.run,
        )
    written = files.read_json(f.run / run_files.RESULTS["finetune"], shape=Scores)
    before = predictions.read_predictions(f.run / predictions.FILE, run.classes)
    after = outcome.predict_again(run, cli.LISTENER, roots_of(run, f.data_root))
    found = predictions.summary(after, run.classes)
    differing, largest = predictions.differences(before, after)

    scores = ("accuracy", "uf1", "uar")
    rows = [(name, f"{written[name]:.4f}", f"{found[name]:.4f}") for name in scores]
    caption = (
        f"{after.classes.size} predictions, {len(differing)} differ; probabilities differ by at "
        f"most {largest:.1e} (written with 6 digits)"
    )
    cli.table(f"{f.run}", ("", "written", "reloaded"), rows, caption)
    cli.print_absent(found)
    if differing:
        name = {None: "absent"} | dict(enumerate(run.classes))
        rows = [(clip, seed, name[was], name[now]) for clip, seed, was, now in differing[:SHOWN]]
        cli.table("differing predictions", ("clip", "seed", "written", "reloaded"), rows)
        return 1
    cli.say("evaluation agrees with the run")
    return 0


def roots_of(run: Finetuned, text: str | None) -> dict[str, str]:
    """Where the run's datasets lie now, by name: those of which something is said."""
    names = [spec.name for spec in run.datasets]
    if not text:
        return {}
    if len(names) == 1 or run.stored.resolved["protocol"]["name"] == "cross":
        places = flags.of_each("root", text, names) or {names[0]: text}
    else:
        places = flags.roots_of(text, names)
    return {name: str(pathlib.Path(place).resolve()) for name, place in places.items()}


def export(path: pathlib.Path, out: pathlib.Path) -> None:
    """Writes every encoder of a run, fine-tuned or pre-trained."""
    if run_files.read(path).script == "pretrain":
        run = finished.read_pretrained(path)
        found = [("pretrained", run.state.params, run.state.batch_stats)]
    else:
        run = finished.read_finetuned(path)
        found = (
            (f"seed{seed}-{fold.replace('/', '-')}", *weights)
            for (seed, fold), *weights in finished.saved_members(run)
        )
    normalisation = run.config.architecture.normalisation
    for name, params, batch_stats in found:
        for encoder, learned in params["miacnet"].items():
            file = out / f"{name}_{encoder}.safetensors"
            torchvision.write(file, learned, batch_stats[encoder], encoder, normalisation)
            cli.say(str(file))


if __name__ == "__main__":
    cli.run(main)
