"""Run a program that a model wrote, with limits on time, memory, files, network and processes, and count its tests.

    found = sandbox.run("def double(x): return 2 * x", ["assert double(2) == 4", "assert double(0) == 1"])
    found.status, found.passed                                   # 'finished', (True, False)

Two processes, started afresh and without environment, do the work: the program runs in one, its tests in the other,
the judge, which asks the first for the values of what tests call. See `confine` for what both give up; the scratch
folder is removed afterwards. No privilege is needed. Whatever happens, `run` returns: a program that hangs, crashes or
floods its output has passed nothing.

**How a program runs.** `setup` first (after it, if it needs the program's names), then the program, with `__name__`
other than "__main__", as the usual graders do: what stands under a main guard is not run. Standard input is empty. An
exception ends it as "error"; leaving by SystemExit, or asking for input at the end of its code, is its end like any
other, if by then it has defined a name that tests use.

**What a verdict rests on.** See `judge`: the program is told which calls to make, one by one, and sends back plain
data; expected values and comparisons stay with the judge, out of its reach. Two objects of the program's own classes
are compared by the program, though, and its methods may answer as they like to a test's values. Tests about the
program's process (output, modules, random state) run there, where one that looks for it finds what they expect.
`Result.outside` tells which. A helper that tests name but neither they nor the setup define is the program's as well;
and what has one of two possible results can be guessed.

What it does not do: programs share the kernel with you, so this is a guard against what a policy finds, not against an
attacker with a kernel exploit. Time and memory that it uses can be felt by others.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from compendium.policy_opt import confine

# Begins as `python confine.py` does, but with what was compiled before: half the time that a short program takes.
START = "import sys; sys.path.insert(0, sys.argv[1]); from compendium.policy_opt import confine; confine.main()"
CHECK = 0.05  # seconds between looks at the scratch folder


class SandboxError(RuntimeError):
    """Programs cannot be run safely here; the message says what is missing."""


@dataclass(frozen=True)
class Result:
    """What became of a program.

    status: "finished"; "error", an exception or an early exit; "timeout", wall or processor time; "memory"; "disk";
    "killed", by a signal, as after a crash of the interpreter. passed: one bool a test, all False unless finished.
    stdout, stderr: what it wrote, cut to the limit. seconds: wall time. outside: one bool a test, whether its verdict
    was found outside the program's process; where not, it rests on the program's word.
    """

    status: str
    passed: tuple[bool, ...]
    stdout: str
    stderr: str
    seconds: float
    outside: tuple[bool, ...] = ()


def run(
    code: str,
    tests: Sequence[str] = (),
    *,
    setup: str = "",
    wall: float = 5.0,
    cpu: int = 5,
    memory: int = 512,
    disk: int = 16,
    output: int = 64,
    strict: bool = True,
) -> Result:
    """Run `setup` and `code`, then each test, an assert statement, where the program left off.

    wall, cpu: seconds. memory: MiB of address space, of which the interpreter takes about 20. disk: MiB in the scratch
    folder, a file counting as 4 KiB at least. output: KiB kept of each stream; a stream or file may grow to 1 MiB.
    strict: refuse to run where the operating system cannot keep the program from files, network and new processes;
    False runs it with what there is. Safe to call from several threads.
    Raises SandboxError.
    """
    gaps = confine.missing()
    if strict and gaps:
        raise SandboxError(
            f"this machine cannot keep programs from {'; '.join(gaps)}: run them on Linux 5.13 or newer, "
            "or accept the risk with strict=False"
        )
    job = dict(code=code, tests=list(tests), setup=setup, cpu=cpu, memory=memory << 20, file_size=1 << 20)
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", START, confine.LIBRARY]
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="sandbox.", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        tempfile.TemporaryFile() as verdict,
    ):
        stdin.write(json.dumps(job | dict(verdict=verdict.fileno())).encode())
        stdin.seek(0)
        # Streams are files: a flood meets the limit on a file's size instead of filling our memory.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            pass_fds=[verdict.fileno()],
        )
        stopped = _wait(process, folder, started + wall, disk << 20)
        seconds = time.monotonic() - started
        said, complaints, found = (_read(stream) for stream in (stdout, stderr, verdict))
    found = json.loads(found) if found and not stopped else dict(status=None, code=process.returncode)
    status = found["status"]
    if status and status.startswith(confine.UNCONFINED):
        raise SandboxError(status)
    if status != "finished":
        status = stopped or _reason(found["code"], status, complaints)
        found |= dict(passed=[False] * len(tests), outside=[False] * len(tests))
    passed, outside = tuple(found["passed"]), tuple(found["outside"])
    return Result(status, passed, said[: output << 10], complaints[: output << 10], seconds, outside)


def _wait(process, folder: str, deadline: float, disk: int) -> str | None:
    """Wait for the end; kill the process, and say why, at the deadline or when the folder is full."""
    reason = None
    while reason is None:
        try:
            process.wait(timeout=max(0.0, min(CHECK, deadline - time.monotonic())))
            return None
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                reason = "timeout"
            elif _full(folder, disk):
                reason = "disk"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the group: where calls are not filtered, it may have started others
    process.wait()
    return reason


def _full(folder: str, limit: int) -> bool:
    """Whether a folder holds more than `limit` bytes, a file counting as a page at least."""
    total = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # the program may have removed it meanwhile
            total += max(4096, entry.stat(follow_symlinks=False).st_size)
        if total > limit:
            return True
    return False


def _read(stream) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _reason(code: int, status: str | None, complaints: str) -> str:
    """Why a process that nobody stopped did not finish."""
    if status:
        return status
    if code in (-signal.SIGKILL, -signal.SIGXCPU):  # the limit on processor time
        return "timeout"
    if code < 0:
        return "killed"
    return "memory" if "MemoryError" in complaints[-500:] else "error"
