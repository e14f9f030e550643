"""Random weights for tests, and their number."""

from functools import partial

import jax
import jax.numpy as jnp
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


def state_of(init, config, seed=0):
    """A state of the shape that `init(config, key)` gives, before its first step.

    All weights are `shaken`, also those that begin at zero, and no `init` need be compiled.
    """
    fresh = jax.eval_shape(partial(init, config), jax.random.key(0))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), fresh)
    learned = jax.device_put(shaken((fresh.params, fresh.batch_stats), seed))
    return blank.replace(params=learned[0], batch_stats=learned[1])
