"""Upload a model folder to the Hugging Face hub.

  python experiments/push.py my_model owner/name

FOLDER is what export.py made; read its README.md first. The repository is made if it is not there,
and nobody but you sees it unless --public is given. The token is that of `hf auth login` or of
HF_TOKEN. predict.py --model=owner/name and ma2mi_jax.load("owner/name") read it from there.
"""

import pathlib

import cli

from ma2mi_jax.evaluation import export


def main(argv):
    p = cli.parser(__doc__)
    p.add_argument("folder", type=pathlib.Path, metavar="FOLDER", help="the model folder")
    p.add_argument("hub_id", metavar="OWNER/NAME", help="the repository on the hub")
    p.add_argument("--public", action="store_true", help="everybody may see it")
    f = p.parse_args(argv)
    is_public = export.push(f.folder, f.hub_id, f.public)
    cli.say(f"{f.hub_id}: uploaded; {'everybody' if is_public else 'only who you let'} can see it")


if __name__ == "__main__":
    cli.run(main)
