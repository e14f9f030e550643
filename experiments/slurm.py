"""A plan as jobs of SLURM: an array of pre-trainings, arrays of fine-tunes, and the page."""

import pathlib
import shlex
import sys
from collections.abc import Sequence

import flags

from ma2mi_jax import files
from ma2mi_jax.reproduction.plans import Planned

SUBMIT = """\
#!/usr/bin/env bash
# Submits {count}, and then the page. The options of sbatch for all jobs:
#   {folder}/submit.sh --partition=gpu --gpus=1 --cpus-per-task=8 --time=1-00:00:00
# A fine-tune waits for its pre-training alone. The last job waits for all, makes what is missing,
# and writes the page.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p logs
options=("$@")
submit() {{ # prints the number of the job
    sbatch --parsable --kill-on-invalid-dep=yes --output=logs/%x-%A-%a.txt "${{options[@]}}" "$@" |
        cut -d';' -f1
}}
all=()
"""
LAST = """
after=$(IFS=:; echo "${all[*]}")
page=$(submit ${after:+--dependency="afterany:$after"} page.sh)
echo "submitted: ${all[*]} $page; the pages will lie in {out}"
"""
JOB = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
# {what}
set -euo pipefail
cd {here}
make() {{ srun --kill-on-bad-exit=1 {python} "$@"; }} # with several tasks: processes of one run
"""


def write(waiting: Sequence[Planned], out: pathlib.Path, argv: Sequence[str]) -> pathlib.Path:
    """Writes the scripts of a plan.

    Args:
      waiting: the runs to make, each after the one it starts from.
      out: the folder of the plan; the scripts lie in `slurm` below it.
      argv: the flags of reproduce.py, by which the last job makes what is missing, and the page.

    Returns:
      The script that submits all others.
    """
    out = out.resolve()
    folder = out / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    pretrain, finetune = (
        [planned for planned in waiting if planned.run.script == script]
        for script in ("pretrain", "finetune")
    )
    _write(folder / "pretrain.sh", _array("pretrain", pretrain, out))
    _write(folder / "finetune.sh", _array("finetune", finetune, out))
    words = [_script("reproduce"), *_without_emit(argv)]
    page = JOB.format(name="page", what="Makes what is missing, and the page.", **_where())
    page = page.replace("srun", "srun --ntasks=1") + f"make {shlex.join(words)}\n"
    _write(folder / "page.sh", page)
    _write(folder / "submit.sh", _submit(pretrain, finetune, folder))
    return folder / "submit.sh"


def _without_emit(argv: Sequence[str]) -> list[str]:
    """The flags without `--emit=slurm`, or `--emit slurm`; a folder may be called slurm too."""
    before = ["", *argv[:-1]]
    return [
        word
        for last, word in zip(before, argv, strict=True)
        if word.partition("=")[0] != "--emit" and last != "--emit"
    ]


def _script(name: str) -> str:
    return str(pathlib.Path(__file__).resolve().parent / f"{name}.py")


def _where() -> dict[str, str]:
    return {"here": shlex.quote(str(pathlib.Path.cwd())), "python": shlex.quote(sys.executable)}


def _write(path: pathlib.Path, text: str) -> None:
    with files.whole(path) as temporary:
        temporary.write_text(text)
        temporary.chmod(0o755)


def _array(script: str, runs: Sequence[Planned], out: pathlib.Path) -> str:
    """A job array: its task i makes run i."""
    lines = [JOB.format(name=script, what="Each task of the array makes one run.", **_where())]
    lines.append("case $SLURM_ARRAY_TASK_ID in\n")
    for number, planned in enumerate(runs):
        words = [_script(script), *flags.of(planned.placed(out))]
        lines.append(f"{number}) # {planned.folder}\n    make {shlex.join(words)} ;;\n")
    lines.append('*) echo "no such run: $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;\nesac\n')
    return "".join(lines)


def _submit(pretrain: Sequence[Planned], finetune: Sequence[Planned], folder: pathlib.Path) -> str:
    """The script that submits the jobs, with what each waits for."""
    count = f"{len(pretrain)} pre-trainings, {len(finetune)} fine-tunes"
    lines = [SUBMIT.format(count=count, folder=shlex.quote(str(folder)))]
    if pretrain:
        lines.append(f"\npretrain=$(submit --array=0-{len(pretrain) - 1} pretrain.sh)\n")
        lines.append('all+=("$pretrain")\n')
    tasks: dict[Planned | None, list[str]] = {}  # by the pre-training that they wait for
    for number, planned in enumerate(finetune):
        start = planned.init if planned.init in pretrain else None
        tasks.setdefault(start, []).append(str(number))
    for start, numbers in tasks.items():
        needs = f' --dependency="afterok:${{pretrain}}_{pretrain.index(start)}"' if start else ""
        lines.append(f"\n# from {start.folder if start else 'what is there'}\n")
        lines.append(f'all+=("$(submit --array={",".join(numbers)}{needs} finetune.sh)")\n')
    lines.append(LAST.replace("{out}", shlex.quote(str(folder.parent))))
    return "".join(lines)
