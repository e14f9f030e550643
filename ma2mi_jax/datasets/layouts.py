"""Where each named dataset is expected to lie under `--data-root`; the readers of the next issue take these lines over."""

import dataclasses
import itertools
import os
import pathlib

from ma2mi_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """`shown` is the layout in words, `patterns` are globs of which one must match, `flag` is how the dataset is chosen."""

    flag: str
    shown: str
    patterns: tuple[str, ...]


LAYOUTS = {
    "dfew": Layout("--source", "Clip/clip_224x224/<clip>/*.jpg", ("Clip/clip_224x224/*/*.jpg",)),
    "ferv39k": Layout(
        "--source",
        "2_ClipsforFaceCrop/<scene>/<emotion>/<clip>/*.jpg",
        ("2_ClipsforFaceCrop/*/*/*/*.jpg", "2_ClipsforFaceCrop/2_ClipsforFaceCrop/*/*/*/*.jpg"),
    ),
    "afew": Layout(
        "--source",
        "Train_AFEW/<emotion>/*.avi or Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/<id>/*.jpg",
        ("Train_AFEW/*/*.avi", "Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/*/*.jpg"),
    ),
    "casme2": Layout(
        "--target",
        "Cropped/sub01/<clip>/reg_img1.jpg or CASME2_RAW_selected/sub01/<clip>/img1.jpg",
        ("Cropped/sub*/*/*.jpg", "CASME2_RAW_selected/sub*/*/*.jpg"),
    ),
    "samm": Layout("--target", "006/006_1_2/006_05562.jpg", ("[0-9][0-9][0-9]/*/*.jpg",)),
    "mmew": Layout(
        "--target",
        "Micro_Expression/<emotion>/<clip>/1.jpg or Micro_Expression/<subject>/<emotion>/<clip>/1.jpg",
        ("Micro_Expression/*/*/*.jpg", "Micro_Expression/*/*/*/*.jpg"),
    ),
}
ALIASES = {"fervk39": "ferv39k"}


def require(name: str, root: str) -> None:
    """Passes if dataset `name` (or an alias of it) lies under `root`.

    Raises:
      UserError: it does not; the line says what was looked for, what is there instead, and what to do.
    """
    name = ALIASES.get(name, name)
    layout = LAYOUTS[name]
    if any(True for pattern in layout.patterns for _ in itertools.islice(pathlib.Path(root).glob(pattern), 1)):
        return
    raise UserError(
        f"{layout.flag}={name}: looked for {layout.shown} under {root}, found nothing there ({_there(root)}); "
        f"unpack the dataset there or give --data-root=FOLDER"
    )


def _there(root: str) -> str:
    if not os.path.isdir(root):
        return "it is a file" if os.path.exists(root) else "the folder does not exist"
    names = sorted(os.listdir(root))
    return f"the folder holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "the folder is empty"
