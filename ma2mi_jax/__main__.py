"""The console command: `ma2mi COMMAND FLAGS`, or `python -m ma2mi_jax COMMAND FLAGS`.

Each command is a script of the folder `experiments`, run as its own process would run it.
"""

import ast
import pathlib
import runpy
import sys
import textwrap

import ma2mi_jax
from ma2mi_jax import signals

COMMANDS = {
    "pretrain": "pretrain.py",
    "finetune": "finetune.py",
    "evaluate": "evaluate.py",
    "prepare": "prepare.py",
    "predict": "predict.py",
    "export": "export.py",
    "push": "push.py",
    "probe": "probe.py",
    "runs": "runs.py",
    "compare": "compare.py",
    "reproduce": "reproduce.py",
    "inspect": "inspect_dataset.py",
}
COLUMNS = 100  # of the list of commands


def main() -> None:
    """Runs the command that is named in `sys.argv`, and exits as its script does.

    Exits with 2 and one line on stderr if there is no such command.
    """
    name, flags = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in ("-h", "--help"):
        with signals.unread():
            print(commands_in_words())
    elif name in ("-V", "--version"):
        print(f"ma2mi_jax {ma2mi_jax.__version__}")
    elif name in COMMANDS:
        run_script(scripts_folder() / COMMANDS[name], flags)
    else:
        known = ", ".join(COMMANDS)
        print(f"error: {name}: no such command; give one of {known}", file=sys.stderr)
        sys.exit(2)


def scripts_folder() -> pathlib.Path:
    """The folder of the scripts: beside the package in a clone, inside it in a wheel."""
    package = pathlib.Path(ma2mi_jax.__file__).resolve().parent
    beside = package.parent / "experiments"
    return beside if (beside / "cli.py").is_file() else package / "experiments"


def run_script(script: pathlib.Path, flags: list[str]) -> None:
    """Runs `script` as `python script flags` would.

    The scripts import each other by name, so their folder comes first on the path. `run_path` makes
    the script the main module, which processes that read frames import again.
    """
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *flags]
    runpy.run_path(str(script), run_name="__main__")


def commands_in_words() -> str:
    """What `ma2mi` prints without a command: how to use it, and what each command does."""
    lines = ["usage: ma2mi COMMAND FLAGS", "", "Commands:"]
    indent = 2 + max(map(len, COMMANDS)) + 2
    for name, file in COMMANDS.items():
        lines += textwrap.wrap(
            purpose(scripts_folder() / file),
            COLUMNS,
            initial_indent=f"  {name}".ljust(indent),
            subsequent_indent=" " * indent,
        )
    lines += ["", "ma2mi COMMAND --help lists the flags of a command; ma2mi --version the version."]
    return "\n".join(lines)


def purpose(script: pathlib.Path) -> str:
    """The first paragraph of a script's docstring, read from its text: nothing is imported."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


if __name__ == "__main__":
    main()
