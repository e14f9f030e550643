"""vmap that unrolls: leave-one-subject-out trains many networks at once by `jax.vmap`, and each must get what it would get alone.

Left to itself, vmap turns convolutions over different weights into grouped convolutions (3.5-4 times slower than a loop on a CPU, a slow
backward pass on CUDA), and matrix products and BatchNorm's sums into batched ones that may add in another order. Under this rule the mapped
function is laid out once for each member inside the same program: plain operations, bit for bit (on a CPU) those of the member alone.
Measured on 2 CPU cores, four ResNet18 pairs of width 16 at 96 px: 0.36 s a step against 0.77 s with only the convolutions unrolled.
"""

import jax
import jax.numpy as jnp


def unrolled_under_vmap(fn):
    """`fn` (arrays or trees in and out), with a vmap rule that calls it once for each member of the mapped axis and stacks the results."""
    mappable = jax.custom_batching.custom_vmap(fn)

    @mappable.def_vmap
    def rule(size, mapped, *args):
        def member(k):
            return fn(
                *jax.tree.map(lambda a, is_mapped: a[k] if is_mapped else a, args, tuple(mapped))
            )

        stacked = jax.tree.map(lambda *members: jnp.stack(members), *map(member, range(size)))
        return stacked, jax.tree.map(lambda _: True, stacked)

    return mappable
