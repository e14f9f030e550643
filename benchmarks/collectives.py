"""What devices tell each other in a compiled step, read off its HLO."""

import dataclasses
import math
import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import steps
from benchmarks.measure import Built
from ma2mi_jax.training import pretraining

KINDS = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One array that goes through one collective operation.

    Attributes:
      kind: such as `all-reduce`.
      shape: of the array on each device.
      of: the operation it was made for, as JAX names it.
    """

    kind: str
    shape: tuple[int, ...]
    of: str

    @property
    def values(self) -> int:
        return math.prod(self.shape)


def read(hlo: str) -> list[Collective]:
    """The collectives in the text of a compiled program."""
    found = []
    for line in hlo.splitlines():
        made = re.match(rf"\s*(?:ROOT )?\S+ = (.+?) ({KINDS})(?:-start)?\(", line)
        if made:
            of = re.search(r'op_name="([^"]*)"', line)
            shapes = re.findall(r"\w+\[([\d,]*)\]", made[1])
            sides = [tuple(map(int, filter(None, shape.split(",")))) for shape in shapes]
            found += [Collective(made[2], each, of[1] if of else "") for each in sides]
    return found


def sharded_step(config: pretraining.Config, given: steps.Input, count: int):
    """The step as pre-training runs it on `count` devices: (compiled, state, batch).

    The autoencoder inside is left out: it is frozen, and each device encodes its own frames.
    """
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    state = jax.device_put(steps.start(config), whole)
    batch = jax.device_put(steps.batch_of(config, given), split)
    step = jax.jit(lambda s, b: pretraining.train_step(config, s, b), donate_argnums=0)
    return step.lower(state, batch).compile(), state, batch


def build(config: pretraining.Config, given: steps.Input, count: int) -> Built:
    """The step on `count` devices; the facts say what they tell each other."""
    step, state, batch = sharded_step(config, given, count)
    told = read(step.as_text())

    def run():
        nonlocal state
        state, _ = jax.block_until_ready(step(state, batch))

    return Built(
        run,
        steps.peak_bytes,
        {
            "collectives": ", ".join(sorted({each.kind for each in told})) or "none",
            "values": sum(each.values for each in told),
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        },
    )
