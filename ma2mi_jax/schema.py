"""What was read from a JSON file: whether it has the shape that the code expects, written as type
hints; and dataclasses made of it."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Made = TypeVar("Made")


def mismatch(value: Any, expected: Any, name: str = "") -> str:
    """The first place where a value of JSON is not as expected; empty if there is none.

      mismatch({"clips": [3, "x"]}, TypedDict("Record", {"clips": list[int]}))

      clips[1]: expected int, found 'x'

    Args:
      expected: `Any`, a plain type, `X | None`, `list[X]`, `dict[str, X]`, a tuple for a list of
        fixed length, or a `TypedDict`, beside whose keys there may be others. An int is a float
        too, a bool is no number.
      name: of the value, at the beginning of the answer.
    """
    if expected is Any:
        return ""
    if typing.is_typeddict(expected):
        return _mismatch_of_keys(value, typing.get_type_hints(expected), name)
    kind, inner = typing.get_origin(expected) or expected, typing.get_args(expected)
    if kind in (types.UnionType, typing.Union):
        found = [mismatch(value, each, name) for each in inner]
        return "" if "" in found else found[0]
    if kind is dict:
        if isinstance(value, dict):
            return _first(mismatch(each, inner[1], _key(name, key)) for key, each in value.items())
    elif kind is list:
        if isinstance(value, list):
            return _first(mismatch(each, inner[0], f"{name}[{i}]") for i, each in enumerate(value))
    elif kind is tuple:
        if isinstance(value, list) and len(value) == len(inner):
            pairs = enumerate(zip(value, inner, strict=True))
            return _first(mismatch(each, hint, f"{name}[{i}]") for i, (each, hint) in pairs)
    elif isinstance(value, bool):
        if kind is bool:
            return ""
    elif isinstance(value, (int, float) if kind is float else kind):
        return ""
    return _told(name, f"expected {_word(expected)}, found {_short(value)}")


def _mismatch_of_keys(value: Any, hints: dict[str, Any], name: str) -> str:
    if not isinstance(value, dict):
        return _told(name, f"expected an object, found {_short(value)}")
    if missing := [key for key in hints if key not in value]:
        return _told(name, f"lacks {missing[0]}")
    return _first(mismatch(value[key], hint, _key(name, key)) for key, hint in hints.items())


def _first(found: typing.Iterable[str]) -> str:
    return next(filter(None, found), "")


def _key(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _told(name: str, what: str) -> str:
    return f"{name}: {what}" if name else what


def _word(expected: Any) -> str:
    return expected.__name__ if isinstance(expected, type) else str(expected)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def from_json(kind: type[Made], content: Mapping[str, Any]) -> Made:
    """The inverse of `dataclasses.asdict` after a way through JSON, where tuples are lists.

    Raises:
      KeyError: `content` has a name that `kind` lacks.
      TypeError: it lacks one that has no default.
      AttributeError: a part of it that stands for a dataclass is no object.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _made(hints[name], value) for name, value in content.items()})


def _made(hint: Any, value: Any) -> Any:
    if isinstance(hint, types.UnionType):  # `X | None`
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        return None if value is None else _made(inner[0], value)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)
    if isinstance(value, list):  # of a tuple
        return tuple(_made(typing.get_args(hint)[0], each) for each in value)
    return value
