"""The datasets by the names of the command line; one reader a file, each returning a `clips.Source`."""

import pathlib
from collections.abc import Callable

from ma2mi_jax.clips import Source
from ma2mi_jax.datasets import folder, layouts
from ma2mi_jax.errors import UserError

Progress = Callable[[int, int], None]


def read_source(name: str, root: pathlib.Path, *, cache: pathlib.Path, size: int, clips: int, seed: int, progress: Progress) -> Source:
    """The macro-expression videos called `name`.

    Args:
      root: where they lie; not used by `synthetic`.
      cache: where drawn or decoded frames are kept.
      size: side of drawn frames; other sources keep what they have, and the pipeline resizes.
      clips, seed: of `synthetic`.
      progress: called as progress(done, total).

    Raises:
      UserError: nothing usable lies under `root`.
    """
    match name:
        case "synthetic":
            from ma2mi_jax import synthetic  # the only reader that needs jax

            return synthetic.macro_source(str(cache / "synthetic"), clips=clips, size=size, seed=seed, progress=progress)
        case "folder":
            return folder.read(str(root), cache=str(cache / "folder"), progress=progress)
    layouts.require(name, str(root))
    raise UserError(f"--source={name}: the reader of this dataset is not written yet")


def read_target(
    name: str, root: pathlib.Path, *, cache: pathlib.Path, size: int, subjects: int, clips_per_subject: int, amplitude: float, seed: int
) -> Source:
    """The micro-expression clips called `name`; arguments as for `read_source`, the last four being of `synthetic`."""
    if name == "synthetic":
        from ma2mi_jax import synthetic

        return synthetic.micro_source(
            str(cache / "synthetic"), subjects=subjects, clips_per_subject=clips_per_subject, size=size, seed=seed, amplitude=amplitude
        )
    layouts.require(name, str(root))
    raise UserError(f"--target={name}: the reader of this dataset is not written yet")
