"""Devices tell each other the mean of the gradients and BatchNorm's sums, and nothing else."""

import jax
from networks import SMALLEST

from benchmarks import collectives
from ma2mi_jax.training import pretraining


def test_a_step_on_eight_devices_adds_up_gradients_and_batchnorm_alone():
    config = pretraining.Config(SMALLEST, batch_size=16)
    step, state, _ = collectives.sharded_step(config, "pixels", 8)
    told = collectives.read(step.as_text())
    assert {each.kind for each in told} == {"all-reduce"}

    learned, running = jax.tree.leaves(state.params), jax.tree.leaves(state.batch_stats)
    assert {each.values for each in told} <= {1} | {x.size for x in learned + running}
    # Each gradient once; of a channel's mean and variance at most two sums on the way forward and
    # two on the way back; and the mean of each loss.
    parameters, statistics = (sum(x.size for x in leaves) for leaves in (learned, running))
    values = sum(each.values for each in told)
    assert parameters + statistics <= values <= parameters + 2 * statistics + 10


def test_collectives_are_read_from_a_programs_text():
    hlo = """
  %a = (f32[4]{0}, f32[]) all-reduce(%x, %y), metadata={op_name="jit(f)/bn/reduce_sum"}
  ROOT %b = f32[8,2]{1,0} all-gather-start(%z), dimensions={0}
  %c = f32[8,2]{1,0} add(%all-reduce.1, %b)
"""
    found = [(each.kind, each.shape, each.values, each.of) for each in collectives.read(hlo)]
    assert found == [
        ("all-reduce", (4,), 4, "jit(f)/bn/reduce_sum"),
        ("all-reduce", (), 1, "jit(f)/bn/reduce_sum"),
        ("all-gather", (8, 2), 16, ""),
    ]
