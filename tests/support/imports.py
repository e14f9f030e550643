"""What Python files import, without running them."""

import ast
import pathlib


def names_imported(path: pathlib.Path) -> set[str]:
    """What a file imports, with the modules in front: `ma2mi_jax.clips.frames.Box`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would escape the tests"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found
