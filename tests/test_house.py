"""The rules of the house that a program can check: which parts may know which, and how errors are
written, in the package, in scripts and in benchmarks."""

import ast
import pathlib
import re

import pytest
from imports import names_imported

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "ma2mi_jax"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
ERRORS = "errors.py"  # it explains what a script makes of an error, and puts errors together
TYPED = "__main__.py"  # what a person types at a prompt

MENDED = [file for file in FILES if file != ERRORS]
SCRIPTS = sorted(path.name for path in (ROOT / "experiments").glob("*.py"))
BENCHMARKS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))
ABOVE = {  # who the package does not know: a script goes by its bare name
    "benchmarks",
    "experiments",
    *(name.removesuffix(".py") for name in SCRIPTS),
}
WITH_FLAGS = [
    *(f"experiments/{file}" for file in SCRIPTS),
    *(f"benchmarks/{file}" for file in BENCHMARKS),
]
SPELLING = "experiments/reproduce.py"  # it spells a flag of a script that it starts

FLOORS = (  # from top to bottom; parts on the same floor do not import each other
    ("reproduction",),
    ("evaluation",),
    ("training",),
    ("datasets", "models", "runs"),
    ("clips", "losses"),
    ("files",),
    ("images", "errors", "hub", "memory", "schema", "signals", "versions"),
)


@pytest.mark.parametrize("file", [file for file in MENDED if file != TYPED])
def test_no_flags_and_no_paths_of_scripts(file):
    """A notebook has no flags; a script spells the parameters of an error as its own flags. In an
    installed package scripts lie elsewhere."""
    lines = (PACKAGE / file).read_text().splitlines()
    assert [line.strip() for line in lines if re.search(r"--[A-Za-z]|experiments/", line)] == []


@pytest.mark.parametrize("file", [*(f"ma2mi_jax/{file}" for file in MENDED), *WITH_FLAGS])
def test_errors_are_templates(file):
    """In a text put together from values, a value could be read as the name of a parameter."""
    texts = messages(file)
    assert all(map(plain, texts)), [ast.unparse(text) for text in texts if not plain(text)]


@pytest.mark.parametrize("file", [file for file in WITH_FLAGS if file != SPELLING])
def test_errors_spell_no_flag_but_help(file):
    """Which flag gives a parameter stands in one place, and not in a message too."""
    texts = [text.value for text in messages(file) if plain(text)]
    assert [text for text in texts if re.search("--(?!help)", text)] == []


def messages(file):
    """The first argument of every `UserError` in a file, as it is written there."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("UserError")
    ]
    return [call.args[0] for call in calls]


def plain(node):
    """Whether an expression is text as it stands in the file."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize("file", [file for file in FILES if file not in ("__init__.py", TYPED)])
def test_imports_run_one_way(file):
    """Every part of the package knows itself and the floors below it."""
    part = part_of(file)
    allowed = {part, *below(part)}
    wrong = {name for name in imported(file) if part_of(name) not in allowed}
    assert not wrong, f"{part} may import {sorted(allowed)}"


@pytest.mark.parametrize("file", FILES)
def test_the_package_knows_no_script_and_no_benchmark(file):
    assert {name.partition(".")[0] for name in names_imported(PACKAGE / file)} & ABOVE == set()


@pytest.mark.parametrize("file", SCRIPTS)
def test_a_script_knows_no_benchmark(file):
    names = names_imported(ROOT / "experiments" / file)
    assert "benchmarks" not in {name.partition(".")[0] for name in names}


def below(part):
    """The parts on the floors below that of `part`."""
    (floor,) = [number for number, parts in enumerate(FLOORS) if part in parts]
    return [name for parts in FLOORS[floor + 1 :] for name in parts]


def part_of(path):
    """`clips/frames.py` belongs to `clips`, `errors.py` is `errors`."""
    return path.partition("/")[0].removesuffix(".py")


def imported(file):
    """What a file of the package imports from the package, as paths: `clips/frames`."""
    names = names_imported(PACKAGE / file) - {"ma2mi_jax.__version__"}
    found = {name.removeprefix("ma2mi_jax.") for name in names if name.startswith("ma2mi_jax.")}
    return {name.replace(".", "/") for name in found}
