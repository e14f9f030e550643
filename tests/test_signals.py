"""A signal ends a process in time, with what is worth saving saved; children end with parents."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN = """
import os, sys, threading, time, weakref
from ma2mi_jax import signals

signals.CLOSING = signals.SAVING = 1.5
watch = signals.Watch()
watch.install()

def swallow():  # an exception in a callback is printed and lost
    class Thing: pass
    thing = Thing()
    reference = weakref.ref(thing, lambda _: (print("ready", flush=True), wait()))
    del thing
    time.sleep(60)

def wait():
    for _ in range(600):
        time.sleep(0.1)

def ready():
    print("ready", flush=True)
"""
UNWINDS = """
watch.begin()
try:
    ready()
    wait()
finally:
    print("closed", flush=True)
    os._exit(watch.exit_code)
"""
SAVES = """
watch.begin()
try:
    with watch.stoppable() as asked:
        ready()
        while not asked():
            time.sleep(0.05)
        print("saved", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(watch.exit_code)
"""
STUCK = """
watch.begin()
with watch.stoppable():
    ready()
    wait()
"""
PROGRAMS = {  # what is done, and what it prints after the signal
    "ready(); wait()": "",
    UNWINDS: "closed\n",
    SAVES: "saved\ninterrupted\n",
    STUCK: "",
    "watch.begin(); swallow()": "",
    "import atexit; watch.begin(); watch.end(); atexit.register(wait); ready()": "",
}


def start(program):
    """A process that runs it and is ready."""
    words = [sys.executable, "-c", BEGIN + program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(words, cwd=ROOT, **pipes)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_signal_ends_it_wherever_it_comes(program, number):
    with start(program) as process:
        process.send_signal(number)
        printed, told = process.communicate(timeout=30)
    assert (process.returncode, printed) == (128 + number, PROGRAMS[program])
    assert "Traceback" not in told


def test_a_second_signal_ends_it_at_once_and_an_echo_of_the_first_does_not():
    patient = "signals.SAVING = 50\n" + STUCK
    with start(patient) as process:
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 143  # of the first


CHILD = """
signals.end_with_parent()
ready()
wait()
"""
PARENT = f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", {BEGIN + CHILD!r}],
                         env=signals.environment_of_child(), stdout=subprocess.PIPE)
child.stdout.readline()
ready()
print(child.pid, flush=True)
wait()
"""
WORKERS = """
import multiprocessing

def work():
    signals.be_worker()
    ready()
    print(os.getpid(), flush=True)
    wait()

multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
wait()
"""


def ended(pid):
    """Whether it ends within half a minute."""
    for _ in range(300):
        try:
            os.kill(pid, 0)
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # nobody waits for an orphan in a container
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("program", [PARENT, WORKERS], ids=["script", "worker"])
def test_a_child_ends_with_a_parent_that_is_killed(program):
    with start(program) as process:
        pid = int(process.stdout.readline())
        process.kill()
        assert ended(pid)


def test_a_worker_outlives_what_a_terminal_and_a_scheduler_send_to_all():
    with start(WORKERS) as process:
        pid = int(process.stdout.readline())
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        os.kill(pid, 0)
        process.kill()
        assert ended(pid)


@pytest.mark.parametrize(
    "print_much", ["sys.stdout.write('x' * 10**6)", "print('held back')", "sys.exit(print('x'))"]
)
def test_who_prints_what_nobody_reads_ends_without_a_word(print_much):
    """As in `ma2mi runs | head -1`."""
    code = f"import sys\nfrom ma2mi_jax import signals\nwith signals.unread(): {print_much}"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
