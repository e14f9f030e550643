"""The datasets by the names of the command line; one reader a file, each returning a `clips.Dataset`. A prepared folder serves for any."""

import pathlib
from collections.abc import Callable

from ma2mi_jax.clips.clip import Dataset
from ma2mi_jax.clips.faces import Detector
from ma2mi_jax.datasets import (
    afew,
    casme2,
    dfew,
    ferv39k,
    folder,
    megc2019,
    mmew,
    prepared,
    samm,
    smic,
)
from ma2mi_jax.errors import UserError

Progress = Callable[[int, int], None]


def read_source(
    name: str,
    root: pathlib.Path,
    *,
    cache: pathlib.Path,
    size: int,
    clips: int,
    seed: int,
    split: str | None = None,
    detector: Detector | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The macro-expression videos called `name`.

    Args:
      root: where they lie; not used by `synthetic`.
      cache: where drawn or decoded frames are kept, and what was found out about the others.
      size: side of drawn frames; other sources keep what they have, and the pipeline resizes.
      clips, seed: of `synthetic`.
      split: part of `dfew` (`train_1` ... `test_5`), `ferv39k` (`train`, `test`, a scene's) or `afew` (`train`, `val`); None is all.
      detector: finds the faces in raw frames; None is `faces.haar()`.
      progress: called as progress(done, total).

    Raises:
      UserError: nothing usable lies under `root`, or there is no such split.
    """
    own = {"cache": str(cache / name), "progress": progress}
    if prepared.is_prepared(root):
        if split is not None:
            raise UserError(
                f"--split={split}: {root} holds prepared data, and what is in it was chosen then; leave --split out"
            )
        return prepared.read(root, name, "source")
    if split is not None and name in ("synthetic", "folder"):
        raise UserError(f"--source={name}: no split {split!r}; it has none, so leave --split out")
    match name:
        case "synthetic":
            from ma2mi_jax.datasets.drawn import synthetic

            return synthetic.macro_source(**own, clips=clips, size=size, seed=seed)
        case "folder":
            return folder.read(str(root), **own, detector=detector)
        case "dfew":
            return dfew.read(str(root), **own, split=split)
        case "ferv39k":
            return ferv39k.read(str(root), **own, split=split)
        case "afew":
            return afew.read(str(root), **own, split=split, detector=detector)
    raise UserError(
        f"--source={name}: no such source; give dfew, ferv39k, afew, folder or synthetic"
    )


def read_target(
    name: str,
    root: pathlib.Path,
    *,
    cache: pathlib.Path,
    size: int,
    subjects: int,
    clips_per_subject: int,
    amplitude: float,
    seed: int,
    annotations: str | None = None,
    detector: Detector | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The micro-expression clips called `name`.

    Args:
      root, cache, size, detector, progress: as for `read_source`; the root of `megc2019` holds the folders casme2, samm and smic.
      subjects, clips_per_subject, amplitude, seed: of `synthetic`.
      annotations: path of the annotation sheet; None finds it under `root`. Not for `smic`, `megc2019` and `synthetic`.

    Raises:
      UserError: frames or sheet are not there, or no row of it can be used.
    """
    own = {"cache": str(cache / name), "progress": progress}
    if prepared.is_prepared(root):
        if annotations is not None:
            raise UserError(
                f"--annotations={annotations}: {root} holds prepared data with their annotations; leave the flag out"
            )
        return prepared.read(root, name, "target")
    if name in ("smic", "megc2019", "synthetic") and annotations is not None:
        why = (
            "there is one for each dataset, found in its folder"
            if name == "megc2019"
            else "it has none"
        )
        raise UserError(
            f"--annotations={annotations}: --target={name} takes no sheet, for {why}; leave the flag out"
        )
    match name:
        case "synthetic":
            from ma2mi_jax.datasets.drawn import synthetic

            return synthetic.micro_source(
                **own,
                subjects=subjects,
                clips_per_subject=clips_per_subject,
                size=size,
                seed=seed,
                amplitude=amplitude,
            )
        case "smic":
            return smic.read(str(root), **own, detector=detector)
        case "megc2019":
            return megc2019.read(str(root), **(own | {"cache": str(cache)}), detector=detector)
    readers = {"casme2": casme2.read, "samm": samm.read, "mmew": mmew.read}
    if name not in readers:
        raise UserError(
            f"--target={name}: no such target; give casme2, samm, mmew, smic, megc2019 or synthetic"
        )
    return readers[name](str(root), **own, annotations=annotations, detector=detector)
