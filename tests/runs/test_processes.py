"""Several processes of one run: how launchers tell them of each other, and what they agree on."""

import subprocess
import sys

import commands
import pytest

from ma2mi_jax.errors import UserError
from ma2mi_jax.runs import processes
from ma2mi_jax.runs.processes import Launch

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "a01", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_JOB_ID": "1000",
    "SLURM_STEP_ID": "2",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "a[07-08,12],b[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


def test_what_launchers_say():
    assert processes.launched({}) is None
    assert processes.launched(TORCHRUN) == Launch("a01:29500", 8, 5)
    local = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert processes.launched(TORCHRUN | local) == Launch("a01:29500", 8, 5, device=1)
    own = {"CUDA_VISIBLE_DEVICES": "3"}  # the launcher has shown this process its own alone
    assert processes.launched(TORCHRUN | local | own).device is None
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # torchrun listens at that port itself
    assert processes.launched(TORCHRUN | agent).coordinator == "a01:29501"

    found = processes.launched(SLURM)
    assert (found.count, found.index, found.device) == (4, 3, 1)
    assert found.coordinator == f"a07:{61440 + (1000 * 16 + 2) % 4096}"
    one_a_node = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_STEP_NODELIST": "n1,n[2-4]"}
    assert processes.launched(one_a_node).device is None
    assert processes.launched(one_a_node).coordinator.startswith("n1:")
    assert processes.launched(SLURM | {"SLURM_NTASKS": "1"}) is None
    batch = {name: value for name, value in SLURM.items() if "STEP" not in name}
    assert processes.launched(batch) is None, "the script of a job is no step of it"
    assert processes.launched(processes.without_launcher(SLURM | TORCHRUN)) is None
    with pytest.raises(UserError, match=r"RANK.*expected whole numbers.*found 8 and five"):
        processes.launched(TORCHRUN | {"RANK": "five"})


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        (Launch("a:1", 2, 2), "process_id=2: expected 0 to 1"),
        (Launch("a", 2, 0), "coordinator_address=a: expected HOST:PORT"),
    ],
)
def test_a_launch_that_makes_no_sense(launch, words):
    with pytest.raises(UserError, match=words):
        processes.join(launch, apart=True)


PROGRAM = """
import sys, time
from ma2mi_jax.runs import processes
from ma2mi_jax.runs.listener import Listener

index, port = int(sys.argv[1]), sys.argv[2]
processes.SLICE, processes.LEAVING = 0.1, 1.0
processes.join(processes.Launch(f"127.0.0.1:{port}", 2, index), apart=True)
assert (processes.count(), processes.index(), processes.is_first()) == (2, index, index == 0)
assert processes.from_first("who", lambda: [index, "x"]) == [0, "x"]
if index:
    time.sleep(0.5)
processes.wait_for_all("here")

# one is asked to stop, and both stop after the same number of steps
wishes = iter([False] * 3 * index + [bool(index)] * 1000 + [False] * 10000)
said = []
listener = processes.listener(Listener(said.append), lambda: 15)
listener.log("line")
assert said == ([] if index else ["line"])
from contextlib import contextmanager

@contextmanager
def stoppable():
    yield lambda: next(wishes)

base = Listener(stoppable=stoppable)
steps = 0
with processes.listener(base, lambda: 15).stoppable() as wished, processes.in_step(wished) as asked:
    while not asked():
        steps += 1
        time.sleep(0.01 + 0.02 * index)
assert processes.stopped_by() == 15
print(steps, processes.from_first("steps", lambda: steps), flush=True)
processes.part()
"""
FAILS = """
if index:
    processes.leave(7)
time.sleep(60)
"""


def pair(program):
    """Exit codes and outputs of two processes that run it."""
    port = str(commands.free_port())
    words = [sys.executable, "-c", program]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": commands.ROOT}
    begun = [subprocess.Popen([*words, str(i), port], **how) for i in range(2)]
    try:
        printed = [process.communicate(timeout=120) for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [process.returncode for process in begun], printed


def test_two_agree_on_a_last_step():
    codes, printed = pair(PROGRAM)
    assert codes == [0, 0], printed
    for out, _ in printed:
        own, of_first = map(int, out.split())
        assert own == of_first > 0


def test_one_that_fails_ends_the_other():
    start = PROGRAM.partition("# one is asked")[0]
    codes, printed = pair(start + FAILS)
    assert codes == [2, 7], printed
    assert printed[0][1].endswith("error: process 1 has ended, and so does this one\n")
