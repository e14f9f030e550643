"""Eight fake CPU devices for the sharding tests; compiled programs and drawn faces are shared.

Programs are kept between test runs, faces within one.
"""

import gc
import os
import pathlib
import shutil
import tempfile

# Compilation takes most of the tests' time. XLA's older emitter of fusions needs half of it. Its
# numbers may differ in the last bit between one device and several; a test that wants these equal
# compiles in a process of its own (tests/training/test_protocol.py).
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_cpu_use_fusion_emitters=false",
    ]
)
# Half as long again with little optimisation of machine code. XLA lays out and fuses operations as
# ever, so what is equal bit for bit is still tested.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "ma2mi_jax_test_xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # processes share them
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Of PyTorch: its kernels for AVX2 go astray (wrong gradients, or no end) on convolutions of so few
# channels as tests have.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "SSE41")

_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))  # that of all its processes
_DRAWN = pathlib.Path(tempfile.gettempdir()) / f"ma2mi_jax_test_faces_{_RUN}"
os.environ["MA2MI_CACHE"] = str(_DRAWN)

LONGEST = [
    "experiments/test_commands.py",
    "training/test_protocol.py",
    "training/test_finetuning.py",
    "training/test_pretraining.py",
    "evaluation/test_gradcam.py",
    "experiments/test_predict.py",
    "experiments/test_together.py",
    "experiments/test_reproduce.py",
]


def pytest_collection_finish():
    """What was imported stays; to look through it again and again takes a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_collection_modifyitems(items):
    """Files that take long go first: else one process ends long after the other."""

    def place(item):
        name = item.path.relative_to(item.config.rootpath / "tests").as_posix()
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


def pytest_unconfigure(config):
    """Faces are thrown away by the process that began, when all others have ended."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(_DRAWN, ignore_errors=True)
