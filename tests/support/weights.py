"""Random weights for tests, and their number."""

import jax
import numpy as np

WHY_TORCH = "PyTorch is a test-only dependency (requirements-test.txt)"


def count(tree):
    """The number of values in a tree of arrays."""
    return sum(x.size for x in jax.tree.leaves(tree))


def shaken(tree, seed=0):
    """Random values of a realistic size everywhere, so that nothing is hidden by a zero or a
    one."""
    rng = np.random.default_rng(seed)

    def shake(path, leaf):
        name = path[-1].key
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        if name in ("scale", "var"):
            return np.abs(1 + np.float32(0.2) * noise)
        return noise * np.float32(0.1 if leaf.ndim == 1 else (2 / np.prod(leaf.shape[:-1])) ** 0.5)

    return jax.tree_util.tree_map_with_path(shake, tree)
