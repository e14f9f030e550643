"""Eight fake CPU devices for the sharding tests, and compiled programs kept between test runs."""

import os
import pathlib
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
