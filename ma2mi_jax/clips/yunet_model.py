"""Where the model of the YuNet face detector is: one file of 230 kB, of one content.

Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023. The
file is that of OpenCV's zoo, under the MIT licence.
"""

import os
import pathlib

from ma2mi_jax import hub
from ma2mi_jax.files import sha256

FILE = "face_detection_yunet_2023mar.onnx"
REPOSITORY = "opencv/face_detection_yunet"
REVISION = "3cc26e7f1014a5ee5d74a42acee58bafc9d0a310"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"


def find(cache: str | os.PathLike | None) -> tuple[pathlib.Path | None, str]:
    """The model file in the folder `cache`, else in the hub's cache, else from the hub.

    A file of another content is not taken. A machine without network is no error.

    Args:
      cache: may hold FILE; None is no such folder.

    Returns:
      The file, and where it is; or None, and why there is none.
    """
    import httpx

    place = cache and pathlib.Path(cache) / FILE
    strange = ""
    if place and place.is_file():
        if sha256(place) == SHA256:
            return place, "its model is in the cache"
        strange = f"the cache's {FILE} has another content than the published one, and "
    try:
        file = hub.fetch(REPOSITORY, FILE, REVISION)
    except (OSError, httpx.HTTPError) as error:
        reason = type(error).__name__
        return None, f"{strange}{FILE} is in no cache and cannot be had from the hub ({reason})"
    if sha256(file) != SHA256:
        return None, f"{strange}what the hub gave as {FILE} has another content"
    return file, f"its model is {FILE} of the hub"
