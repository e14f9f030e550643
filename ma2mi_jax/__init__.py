"""MA2MI in JAX: micro-expression recognition, pre-trained on macro-expression videos."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ma2mi_jax.clips.clip import Clip, Dataset
    from ma2mi_jax.datasets.registry import DatasetSpec, read_dataset
    from ma2mi_jax.evaluation.inference import load, open_run, predict
    from ma2mi_jax.models.miacnet import MIACNet

__version__ = "0.1.0"
__all__ = [
    "Clip",
    "Dataset",
    "DatasetSpec",
    "MIACNet",
    "load",
    "open_run",
    "predict",
    "read_dataset",
]

# Of what an image's header claims OpenCV would take up to 3 GB. It asks once, when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 27))

_HOMES = {  # where the public names live; jax is imported with the first that needs it
    "Clip": "ma2mi_jax.clips.clip",
    "Dataset": "ma2mi_jax.clips.clip",
    "DatasetSpec": "ma2mi_jax.datasets.registry",
    "MIACNet": "ma2mi_jax.models.miacnet",
    "load": "ma2mi_jax.evaluation.inference",
    "open_run": "ma2mi_jax.evaluation.inference",
    "predict": "ma2mi_jax.evaluation.inference",
    "read_dataset": "ma2mi_jax.datasets.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
