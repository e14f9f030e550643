"""The one error that is meant for people. It names parameters; the running script spells them."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

_REFERENCE = re.compile(r"\[([a-z][a-z0-9_]*)(=[^\]]*)?\]")


class UserError(Exception):
    """Something the user can mend: a parameter, a path, a file.

    The message is one line: what was looked at, what was expected, what was found, and how to mend
    it. It is a template, not an f-string: `{name}` stands for the value of a keyword argument,
    `[name]` for the way in which a person gives that parameter. A notebook reads `root`, a script
    spells its own flag:

      UserError("[root={root}]: is a file; give a folder as [root]", root=path)

      root=a.txt: is a file; give a folder as root                        in a notebook
      --data-root=a.txt: is a file; give a folder as --data-root          in a script

    Args:
      message: the template.
      **values: what stands for `{name}`; any object, shown by `str`.
    """

    def __init__(self, message: str, /, **values: Any):
        super().__init__(message)
        self.message, self.values = message, values

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The message, with `spell(name)` for each parameter it names."""
        template = _REFERENCE.sub(lambda found: spell(found[1]) + (found[2] or ""), self.message)
        return template.format(**self.values) if self.values else template

    def __str__(self) -> str:
        return self.spelled(str)

    def __reduce__(self):  # an error of a process that reads frames reaches this one whole
        return _made_again, (self.message, self.values)


def _made_again(message: str, values: dict[str, Any]) -> UserError:
    return UserError(message, **values)


@contextlib.contextmanager
def parameters_called(**names: str) -> Iterator[None]:
    """Renames parameters in what is raised inside: `parameters_called(root="test_root")`."""
    try:
        yield
    except UserError as error:
        message = _REFERENCE.sub(
            lambda found: f"[{names.get(found[1], found[1])}{found[2] or ''}]", error.message
        )
        raise UserError(message, **error.values) from error
