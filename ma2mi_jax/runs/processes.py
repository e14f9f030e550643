"""Several processes that make one run, on one machine or on many.

`jax.distributed` joins them. Each reads its share; process 0 alone writes what there is one of.
They agree through the key-value store that process 0 keeps for `jax.distributed`. All of this costs
nothing where a process is alone.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
from jax._src import distributed  # JAX shows its key-value store nowhere else
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from ma2mi_jax import files
from ma2mi_jax.errors import UserError
from ma2mi_jax.runs.listener import Listener

SLICE = 0.5  # seconds between two looks at what the others say
LEAVING = 6.0  # seconds to save and leave, when another process has ended by an error
HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead
JOINING = 300  # seconds in which all processes must have come
LAUNCHERS = {  # what each sets: number of processes, number of this one
    "torchrun": ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"),
    "slurm": ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"),
}

Found = TypeVar("Found")
_together = distributed.global_state  # how this process talks to the others; see `join`


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a process finds the others.

    Attributes:
      coordinator: `host:port` at which process 0 listens.
      count, index: number of processes, and the number of this one.
      device: the only one of the machine's accelerators that this process takes; None takes all.
    """

    coordinator: str
    count: int
    index: int
    device: int | None = None


# ----- start --------------------------------------------------------------------------------------


def launched(environment: Mapping[str, str]) -> Launch | None:
    """How a launcher has started this process, by the variables that it sets; None for one alone.

    torchrun and all that set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; `srun` of SLURM.

    Raises:
      UserError: a variable is no number.
    """
    for launcher, names in LAUNCHERS.items():
        if not all(environment.get(name) for name in names):
            continue
        count, index, place, number = (environment[name] for name in names)
        try:
            if int(count) == 1:
                return None
            of_machine = _of_torchrun if launcher == "torchrun" else _of_slurm
            coordinator, local = of_machine(environment, place, int(number))
            return Launch(coordinator, int(count), int(index), _only_device(environment, *local))
        except ValueError:
            raise UserError(
                "{names}: expected whole numbers from the launcher, found {count} and {index}",
                names=", ".join(names),
                count=count,
                index=index,
            ) from None
    return None


def _of_torchrun(environment, host: str, port: int) -> tuple[str, tuple[int, int]]:
    """Where process 0 listens; the number of this process on its machine, and of how many."""
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        port += 1  # torchrun itself listens there
    local = int(environment.get("LOCAL_RANK", 0)), int(environment.get("LOCAL_WORLD_SIZE", 1))
    return f"{host}:{port}", local


def _of_slurm(environment, nodes: str, job: int) -> tuple[str, tuple[int, int]]:
    """As `_of_torchrun`. The first of nodes such as `a[01-04,7],b` is a01."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)[0]
    host = re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)
    port = 61440 + (job * 16 + int(environment.get("SLURM_STEP_ID", 0))) % 4096
    of_nodes = re.findall(r"\d+(?=\(|,|$)", environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    return f"{host}:{port}", (int(environment.get("SLURM_LOCALID", 0)), max(map(int, of_nodes)))


def _only_device(environment: Mapping[str, str], index: int, count: int) -> int | None:
    """Which accelerator is that of process `index` of the `count` on this machine."""
    shown = environment.get("CUDA_VISIBLE_DEVICES", "several,")
    return index if count > 1 and "," in shown else None


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that is to be alone, though this one has been launched."""
    taken = {name for names in LAUNCHERS.values() for name in names[:2]}
    return {name: value for name, value in environment.items() if name not in taken}


def join(launch: Launch, *, apart: bool) -> None:
    """Joins the others; before anything asks for a device. Afterwards this process ends, within
    LEAVING seconds, when another one has ended by an error (`leave`).

    Args:
      apart: whether each process computes by itself, on devices that are all devices to it; if not,
        they compute together, on the devices of all.

    Raises:
      UserError: the launch makes no sense, or the others do not come.
    """
    if not 0 <= launch.index < launch.count:
        raise UserError(
            "[process_id={index}]: expected 0 to {last}, for [num_processes={count}]",
            index=launch.index,
            last=launch.count - 1,
            count=launch.count,
        )
    if not re.fullmatch(r".+:\d+", launch.coordinator):
        raise UserError(
            "[coordinator_address={address}]: expected HOST:PORT, with a free port of the machine "
            "of process 0",
            address=launch.coordinator,
        )
    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself
    if launch.device is not None:
        jax.config.update("jax_cuda_visible_devices", str(launch.device))
        jax.config.update("jax_rocm_visible_devices", str(launch.device))
    if apart:
        # Neither JAX nor orbax may hear of the others. Orbax numbers its saves in each process, and
        # would take what it hears of one process's save for that of another, and wait for ever.
        global _together
        _together = distributed.State()
    else:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        _together.initialize(
            launch.coordinator,
            launch.count,
            launch.index,
            cluster_detection_method="deactivate",
            initialization_timeout=JOINING,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except RuntimeError as error:
        raise UserError(
            "[coordinator_address={address}]: {count} processes did not come together there "
            "({reason}); start all of them, with the same address",
            address=launch.coordinator,
            count=launch.count,
            reason=str(error).splitlines()[0],
        ) from None
    threading.Thread(target=_follow, daemon=True).start()


def count() -> int:
    """How many processes make this run."""
    return _together.num_processes


def index() -> int:
    """The number of this one."""
    return _together.process_id


def is_first() -> bool:
    """Whether this process writes what there is one of."""
    return index() == 0


# ----- words --------------------------------------------------------------------------------------


def _say(name: str, value: str = "") -> None:
    """Says it for good: what is said again under the same name is not heard."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # it is there, or process 0 has gone
        _together.client.key_value_set(name, value)


def _heard(name: str) -> str | None:
    """What a process has said; None if nothing yet."""
    client = _together.client
    if client is None:  # this process has parted
        return None
    try:
        return client.key_value_try_get(name)
    except jax.errors.JaxRuntimeError:
        return None


def _wait_for(name: str) -> str:
    """What a process says, as soon as it does."""
    while (said := _heard(name)) is None:
        time.sleep(SLICE / 10)
    return said


def from_first(name: str, make: Callable[[], Found]) -> Found:
    """What `make` returns in process 0, which alone calls it: in every process.

    Args:
      name: of this question, asked once in a run.
      make: returns what JSON can hold.
    """
    if count() == 1:
        return make()
    if is_first():
        _say(f"first/{name}", json.dumps(files.plain(make())))
    return json.loads(_wait_for(f"first/{name}"))


def wait_for_all(name: str, asked: Callable[[], bool] = lambda: False) -> None:
    """Returns when every process has called it.

    Args:
      name: of this place, which each process passes once in a run.
      asked: whether to stop instead.

    Raises:
      KeyboardInterrupt: it was asked to stop.
    """
    if count() == 1:
        return
    _say(f"at/{name}/{index()}")
    for each in range(count()):
        while _heard(f"at/{name}/{each}") is None:
            if asked():
                raise KeyboardInterrupt
            time.sleep(SLICE)


# ----- the end ------------------------------------------------------------------------------------


def _follow() -> None:
    """A thread: ends this process when another one has ended by an error."""
    while (said := _heard("failed")) is None:
        time.sleep(SLICE)
    if int(said) != index():
        time.sleep(LEAVING)  # to save, where this process can without the other
        os.write(2, f"error: process {said} has ended, and so does this one\n".encode())
        _say(f"left/{index()}")
        os._exit(2)


def part() -> None:
    """The usual end of a process of several: returns when all have come to it."""
    if count() > 1:
        wait_for_all("end")
        _together.shutdown()  # process 0 keeps what they talk through until all have heard


def leave(code: int) -> None:
    """Ends this process of several before the usual end of its run, and with it the others, unless
    they know already that all stop. Does nothing if this process is the only one.

    Process 0 is the last, for the others would not survive it.
    """
    if count() == 1:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if _heard("stop") is None:
        _say("failed", str(index()))
    _say(f"left/{index()}")
    deadline = time.monotonic() + LEAVING + 2 * SLICE
    while is_first() and time.monotonic() < deadline:
        if all(_heard(f"left/{each}") is not None for each in range(count())):
            break
        time.sleep(SLICE / 10)
    os._exit(code)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process could not be reached."""
    of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    return count() > 1 and of_jax and bool(re.search("gloo|nccl", str(error), re.IGNORECASE))


def stopped_by() -> int | None:
    """The signal that made another process ask all to stop; None if none did."""
    said = _heard("stop") if count() > 1 else None
    return int(said) if said else None


def listener(base: Listener, signal: Callable[[], int | None]) -> Listener:
    """`base` for a process of several: process 0 alone speaks, and all are asked to stop if one is.

    Args:
      signal: which one this process has got, if any.
    """
    if count() == 1:
        return base

    @contextlib.contextmanager
    def stoppable() -> Iterator[Callable[[], bool]]:
        with base.stoppable() as own:

            def asked() -> bool:
                if own():
                    _say("stop", str(signal() or ""))
                return _heard("stop") is not None or _heard("failed") is not None

            yield asked

    spoken = base if is_first() else Listener()
    return dataclasses.replace(spoken, stoppable=stoppable)


@contextlib.contextmanager
def in_step(asked: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """`asked()` for processes that compute together: true in all of them after the same number of
    calls, one for each step. A process that stopped a step before the others would leave them
    waiting for it.

    Args:
      asked: whether any process is asked to stop.
    """
    if count() == 1:
        yield asked
        return

    lock, over = threading.Lock(), threading.Event()
    calls, last = 0, None

    def agree() -> None:
        """A thread, since the main one may wait for a result to which all must contribute."""
        nonlocal last
        while not asked():
            if over.wait(SLICE):
                return
        with lock:  # no further step, until it is known which is the last
            _say(f"calls/{index()}", str(calls))
            last = 1 + max(int(_wait_for(f"calls/{each}")) for each in range(count()))

    def asked_together() -> bool:
        nonlocal calls
        with lock:
            calls += 1
            return last is not None and calls >= last

    thread = threading.Thread(target=agree, daemon=True)
    thread.start()
    try:
        yield asked_together
    finally:
        over.set()
        _say(f"calls/{index()}", str(calls))  # for those that still want to agree


def begun_together(step: Callable[..., Found], static: Any) -> Callable[..., Found]:
    """A jitted function, of the rest of its arguments; the first is `static`.

    Its first call begins when all processes have compiled it: who had to wait half a minute for the
    others would take them for lost.
    """
    if jax.process_count() == 1:
        return functools.partial(step, static)
    compiled = None

    def call(*args: Any) -> Found:
        nonlocal compiled
        if compiled is None:
            compiled = step.lower(static, *args).compile()
            wait_for_all("compiled")
        return compiled(*args)

    return call


# ----- arrays -------------------------------------------------------------------------------------


def joined(shares: Any, mesh: Mesh) -> Any:
    """Arrays over the devices of all processes, of which each has its share on its own devices.

    Args:
      shares: a tree of arrays, split along their first axis over `mesh.local_mesh`.
      mesh: of the devices of all processes; it has one axis.
    """
    if jax.process_count() == 1:
        return shares
    split = PartitionSpec(*mesh.axis_names)
    return multihost_utils.host_local_array_to_global_array(shares, mesh, split)


def whole(tree: Any) -> Any:
    """Arrays over the devices of all processes, as NumPy arrays in each of them, which all ask."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def own(tree: Any) -> Any:
    """Arrays that each device has whole: as they lie on the first device of this process."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)
