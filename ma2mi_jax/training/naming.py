"""Names of runs: what makes one differ from a run of all defaults, in words."""

import dataclasses
import pathlib
import re
from collections.abc import Collection
from typing import Any

from ma2mi_jax import files
from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec

LONGEST = 80  # bytes of a name: a folder that a person can still read, and type
START = 40  # and of the name of what a run starts from, in its own
SUFFIX = re.compile(r"\.(safetensors|csv|xlsx?|xlsb|ods|onnx)\b")


def differing(of: Any, without: Collection[str] = ()) -> list[str]:
    """The fields of a dataclass that have another value than their default, each as a word.

      differing(PretrainRun(spec, steps=600, position_loss=False))    ["no-lpos", "600-steps"]

    A field's metadata `named` is its word, in which `{}` stands for the value: `{}-steps`. Without
    it the word is the field's name and the value, `no-flip` for False. `named=""` leaves a field
    out, and so are those left out that change no number.

    Args:
      without: names of fields that are told otherwise.
    """
    words = []
    for field in dataclasses.fields(of):
        value, named = getattr(of, field.name), field.metadata.get("named")
        if field.name in without or named == "" or not (field.compare and field.metadata):
            continue
        if value is None or value == field.default:
            continue
        if named is None:
            named = _dashed(field.name) + ("" if isinstance(value, bool) else "-{}")
            named = f"no-{named}" if value is False else named
        words.append(named.format(word(value)))
    return words


def of_dataset(spec: DatasetSpec) -> list[str]:
    """As `differing`; of clips of a person's own also their folder, since no name tells them apart.

    Any other dataset is the same wherever it lies.
    """
    own = registry.reader(spec.kind, spec.name).own and spec.root
    return [*([word(spec.root)] if own else []), *differing(spec)]


def word(value: Any) -> str:
    """A value as part of a name: of a path its last part, without the suffix of a known file."""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    name = SUFFIX.sub("", pathlib.PurePath(str(value)).name)
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")


def joined(*words: str, longest: int = LONGEST) -> str:
    """A name of these words. One that is longer, in bytes, is cut between words, and told apart by
    six digits of its fingerprint."""
    name = "-".join(filter(None, words))
    if len(name.encode()) <= longest:
        return name
    mark = files.fingerprint([name], 6)
    kept = name.encode()[: longest - len(mark) - 1].decode(errors="ignore")
    return f"{kept.rpartition('-')[0] or kept}-{mark}"


def _dashed(name: str) -> str:
    return name.replace("_", "-")
