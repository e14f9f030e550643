"""What is compiled quickly, because it runs once, gives the same numbers."""

import dataclasses

import chex
import jax
from compiled import EXACT, OPTIMISED
from networks import SMALLEST

from ma2mi_jax.runs.compiling import ONCE
from ma2mi_jax.training import pretraining


def test_first_weights_are_the_same_bit_for_bit_however_their_draw_is_compiled():
    """With one level of LLVM less than `ONCE` has, some differ in the last digit."""
    # With one encoder there is half as much to compile.
    architecture = dataclasses.replace(SMALLEST, fusion="action")
    config = pretraining.Config(architecture, batch_size=2)

    def drawn(how):  # as outside the tests, where XLA has its own emitter of fusions
        options = how["compiler_options"] | EXACT["compiler_options"]
        draw = jax.jit(pretraining.init, static_argnums=0, compiler_options=options)
        return draw(config, jax.random.key(0))

    chex.assert_trees_all_equal(drawn(ONCE), drawn(OPTIMISED))
