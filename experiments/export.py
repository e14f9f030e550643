"""Make a model folder of a finished run: one model to give away.

  python experiments/export.py runs/casme2-all-from-dfew-paper-0 my_model \
--scored-by=runs/casme2-from-dfew-paper-0
  python experiments/export.py runs/dfew-paper-0 my_encoders

RUN is a fine-tuning on all subjects (finetune.py --protocol=all) or a pre-training. FOLDER gets
model.safetensors, config.json and README.md, the model card: read it before you give it away. It
holds no optimiser, no path, and no name of a clip or a subject. --scored-by is a run of the same
configuration and data that left subjects out; its score stands in the card, for the model has none.
"""

import pathlib

import cli

from ma2mi_jax.evaluation import export, intervals


def parsed(argv):
    p = cli.parser(__doc__)
    p.add_argument("run", type=pathlib.Path, metavar="RUN", help="folder of a finished run")
    p.add_argument("folder", type=pathlib.Path, metavar="FOLDER", help="where the model goes")
    help = "a run of the same configuration and data that left subjects out"
    p.add_argument("--scored-by", type=pathlib.Path, metavar="RUN", help=help)
    return p.parse_args(argv)


def main(argv):
    f = parsed(argv)
    content = export.export(f.run, f.folder, f.scored_by)
    score = content["score"]
    if score:
        spans = score["interval95"]
        rows = [
            (name, f"{score[name]:.4f}", "{:.2f}–{:.2f}".format(*spans[name])) for name in spans
        ]
        label = f"interval: {intervals.label(score, score['subjects'])}"
        cli.table(f"score of models trained alike, {score['protocol']}", ("", "", label), rows)
    elif content["classes"]:
        cli.say("no score: a run that leaves subjects out, given by --scored-by, would have one")
    cli.say(f"model folder: {f.folder}; read its README.md before you give it away")


if __name__ == "__main__":
    cli.run(main)
