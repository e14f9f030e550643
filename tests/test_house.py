"""The rules of the house that a program can check: which parts may know which, and how errors are
written."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "ma2mi_jax"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
ERRORS = "errors.py"  # it explains what a script makes of an error, and puts errors together
TYPED = "__main__.py"  # what a person types at a prompt

MENDED = [file for file in FILES if file != ERRORS]

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


@pytest.mark.parametrize("file", MENDED)
def test_errors_are_templates(file):
    """In a text put together from values, a value could be read as the name of a parameter."""
    calls = [
        node
        for node in ast.walk(ast.parse((PACKAGE / file).read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("UserError")
    ]
    texts = [call.args[0] for call in calls]
    assert all(map(plain, texts)), [ast.unparse(text) for text in texts if not plain(text)]


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


def below(part):
    """The parts on the floors below that of `part`."""
    (floor,) = [number for number, parts in enumerate(FLOORS) if part in parts]
    return [name for parts in FLOORS[floor + 1 :] for name in parts]


def part_of(path):
    """`clips/frames.py` belongs to `clips`, `errors.py` is `errors`."""
    return path.partition("/")[0].removesuffix(".py")


def imported(file):
    """What a file of the package imports from the package, as paths: `clips/frames`."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would escape this test"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.startswith("ma2mi_jax.")}
    version = "ma2mi_jax.__version__"
    return {name.removeprefix("ma2mi_jax.").replace(".", "/") for name in found - {version}}
