"""The one error that is meant for people. It names parameters; the running script spells them."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

_REFERENCE = re.compile(r"\[([a-z][a-z0-9_]*|\{[a-z][a-z0-9_]*\})(=[^\]]*)?\]")


class UserError(Exception):
    """Something the user can mend: a parameter, a path, a file.

    The message is one line: what was looked at, what was expected, what was found, and how to mend
    it. It is a template, not an f-string: `{name}` stands for the value of a keyword argument,
    `[name]` for the way in which a person gives that parameter. A notebook reads `root`, a script
    spells its own flag:

      UserError("[root={root}]: is a file; give a folder as [root]", root=path)

      root=a.txt: is a file; give a folder as root                        in a notebook
      --data-root=a.txt: is a file; give a folder as --data-root          in a script

    Where the parameter itself is a value, `[{kind}]` names it: with kind="target" the template
    "[{kind}={name}]: not found" says what "[target={name}]: not found" does.

    Args:
      message: the template.
      **values: what stands for `{name}`; any object, shown by `str`.
    """

    def __init__(self, message: str, /, **values: Any):
        super().__init__(message)
        self.message, self.values = message, values

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The message, with `spell(name)` for each parameter it names."""

        def spelled(found: re.Match) -> str:
            return spell(_parameter(found[1], self.values)) + (found[2] or "")

        template = _REFERENCE.sub(spelled, self.message)
        return template.format(**self.values) if self.values else template

    def __str__(self) -> str:
        return self.spelled(str)

    def __reduce__(self):  # an error of a process that reads frames reaches this one whole
        return _made_again, (self.message, self.values)


def check_range(field: str, value: float, least: float | None, most: float | None) -> None:
    """Raises UserError unless `least` <= `value` <= `most`; None is no bound."""
    if least is not None and not value >= least:
        raise UserError(
            "[{field}={value}]: expected at least {least}", field=field, value=value, least=least
        )
    if most is not None and not value <= most:
        raise UserError(
            "[{field}={value}]: expected at most {most}", field=field, value=value, most=most
        )


def _parameter(reference: str, values: dict[str, Any]) -> str:
    """The parameter that `name` or `{name}` refers to."""
    return str(values[reference[1:-1]]) if reference.startswith("{") else reference


def _made_again(message: str, values: dict[str, Any]) -> UserError:
    return UserError(message, **values)


@contextlib.contextmanager
def parameters_called(**names: str) -> Iterator[None]:
    """Renames parameters in what is raised inside: `parameters_called(root="test_root")`."""
    try:
        yield
    except UserError as error:
        values = error.values

        def renamed(found: re.Match) -> str:
            parameter = _parameter(found[1], values)
            return f"[{names.get(parameter, parameter)}{found[2] or ''}]"

        message = _REFERENCE.sub(renamed, error.message)
        raise UserError(message, **values) from error
