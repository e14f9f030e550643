"""Eight fake CPU devices for the sharding tests, and compiled programs kept between test runs."""

import os
import pathlib
import tempfile

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "ma2mi_jax_test_xla")
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
