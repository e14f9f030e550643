"""What a measurement was made on, and how fast it multiplies."""

import datetime
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.measure import Built, Row, Way, compare
from benchmarks.steps import peak_bytes
from ma2mi_jax import versions
from ma2mi_jax.runs import folder


def describe() -> dict[str, Any]:
    """Device, processor, versions, date, and how busy the machine is."""
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        **folder.made_with(),
        **versions.of(["torch", "diffusers"]),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load": os.getloadavg()[0],
    }


def processor() -> str:
    """The name of the CPU, "unknown" where the system does not tell."""
    told = pathlib.Path("/proc/cpuinfo")
    name = told.is_file() and re.search(r"^model name\s*:\s*(.+)$", told.read_text(), re.MULTILINE)
    return name[1] if name else "unknown"


def build_matmul(size: int, dtype: str) -> Built:
    """The product of two square matrices, in JAX."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    return Built(lambda: jax.block_until_ready(product(a, b)), peak_bytes)


def matmul_rates(size: int, precisions, torch: bool, repeats: int) -> list[Row]:
    """FLOP/s of a product of square matrices, by framework and precision."""
    builds = {"jax": build_matmul}
    if torch:
        from benchmarks import torch_steps

        builds["torch"] = torch_steps.build_matmul
    ways = [
        Way({"framework": name, "precision": dtype}, build, {"size": size, "dtype": dtype})
        for dtype in precisions
        for name, build in builds.items()
    ]
    rows = compare(ways, repeats)
    return [
        row | ({"flop_per_second": 2 * size**3 / row["fastest"]} if "fastest" in row else {})
        for row in rows
    ]
