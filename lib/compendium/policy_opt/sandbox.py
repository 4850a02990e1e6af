"""Run a program that a model wrote, with limits on time, memory, files, network and processes, and count its tests.

    found = sandbox.run("def double(x): return 2 * x", ["assert double(2) == 4", "assert double(0) == 1"])
    found.status, found.passed                                   # 'finished', (True, False)

The program runs in its own interpreter, with an empty environment, in a scratch folder that is removed afterwards; see
`confine` for what it gives up. No privilege is needed. Whatever happens, `run` returns: a program that hangs, crashes,
floods its output or leaves early has passed nothing.

What it does not do: programs share the kernel with you, so this is a guard against what a policy stumbles on, not
against an attacker with a kernel exploit. And tests run in the program's own process, where a program that looks for
it could find the word by which `run` knows that the end was reached, or answer `==` with an object of its own.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from compendium.policy_opt import confine

CHECK = 0.05  # seconds between looks at the scratch folder


class SandboxError(RuntimeError):
    """Programs cannot be run safely here; the message says what is missing."""


@dataclass(frozen=True)
class Result:
    """What became of a program.

    status: "finished"; "error", an exception or an early exit; "timeout", wall or processor time; "memory"; "disk";
    "killed", by a signal, as after a crash of the interpreter. passed: one bool a test, all False unless finished.
    stdout, stderr: what it wrote, cut to the limit. seconds: wall time.
    """

    status: str
    passed: tuple[bool, ...]
    stdout: str
    stderr: str
    seconds: float


def run(
    code: str, tests: Sequence[str] = (), *, setup: str = "", wall: float = 5.0, cpu: int = 5, memory: int = 512,
    disk: int = 16, output: int = 64, strict: bool = True,
) -> Result:  # fmt: skip
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
    nonce = secrets.token_hex(16)
    job = dict(code=code, tests=list(tests), setup=setup, cpu=cpu, memory=memory << 20, file_size=1 << 20, nonce=nonce)
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", confine.__file__]
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="sandbox.", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr,
    ):  # fmt: skip
        stdin.write(json.dumps(job).encode())
        stdin.seek(0)
        # Streams are files: a flood meets the limit on a file's size instead of filling our memory.
        process = subprocess.Popen(
            command, cwd=folder, env={}, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        stopped = _wait(process, folder, started + wall, disk << 20)
        seconds = time.monotonic() - started
        said, complaints = (_read(stream) for stream in (stdout, stderr))
    said, _, verdict = said.partition(f"\n{nonce} ")
    status, passed = json.loads(verdict) if verdict else (None, [False] * len(tests))
    if status and status.startswith(confine.UNCONFINED):
        raise SandboxError(status)
    if status != "finished" or process.returncode:
        status, passed = stopped or _reason(process.returncode, status, complaints), [False] * len(tests)
    return Result(status, tuple(passed), said[: output << 10], complaints[: output << 10], seconds)


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
