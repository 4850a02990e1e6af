"""Runs inside the sandbox: gives up every right, then runs program and tests in two processes. Standard library only.

`sandbox.run` starts `main` in a fresh interpreter, with the job as JSON on standard input. It divides into the judge,
which reads the job, and the program's process, which is told of setup and program only. Both give up the same rights,
and nothing here can be undone afterwards; the order matters:

- **Name spaces**, where they are permitted: own System V objects, message queues and network.
- **Limits** (setrlimit): processor seconds, address space, size of a file, open files, no core dump. As root, all
  capabilities are dropped before, or root could raise them again.
- **Files** (Landlock, Linux 5.13 or newer): the interpreter's library can be read, and files in the scratch folder
  made, written and removed. Nothing else can be opened, not even for reading: no test answers, no keys, no /proc.
  Newer kernels also keep TCP, abstract sockets and the program's signals from others.
- **System calls** (seccomp filter): only those in CALLS, which an interpreter needs for files, memory, threads and
  time, and those in CHECKED with harmless arguments. So there is no new process, no socket, no signal or message to
  another process by whatever way, no shared memory, no change of a file's owner or mode, no raising of limits. A
  refused call fails with PermissionError and the program goes on.

Name spaces are a second wall: the others suffice, need no privilege, and work inside containers. The judge may also
kill the program's process.
"""

import contextlib
import ctypes
import importlib
import itertools
import json
import os
import platform
import resource
import signal
import sys

from compendium.policy_opt.syscalls import ARCHITECTURES, CALLS, CHECKED

UNCONFINED = "cannot confine the program"  # begins the status of a program that was therefore not run

THREAD = 0x3D0F00, 0x7D0F00  # flags with which glibc and musl start a thread, not a process
# Duplicate, close on exec, status flags, locks, size of a pipe. Not: owner, signal, lease, notification.
FCNTL, SETFL, ASYNC = (0, 1, 2, 3, 5, 6, 7, 1030, 1032), 4, 0x2000
IOCTL = 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451  # terminal?, its size, bytes to read, no waiting, close on exec

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same on all architectures
READ_FILE, READ_DIR, WRITE_FILE, REMOVE_FILE, MAKE_FILE, TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 5, 1 << 8, 1 << 14
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights a version of Landlock knows; 16 from version 5 on
TCP, SOCKETS, SIGNALS = 3, 1, 2  # version 4: bind and connect; 6: abstract sockets and signals of other processes
USER, IPC, NETWORK = 0x10000000, 0x08000000, 0x40000000  # name spaces

LIBRARY = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))  # found while nothing is given up
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


class Filter(ctypes.Structure):
    """One instruction of the kernel's packet-filter language, in which seccomp rules are written."""

    _fields_ = [
        ("code", ctypes.c_uint16),
        ("then", ctypes.c_uint8),
        ("otherwise", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    ]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Filter))]


class Capabilities(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


class Beneath(ctypes.Structure):
    """A rule of Landlock: rights on everything beneath an open folder."""

    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def call(number: int, *arguments) -> int:
    """A system call by number. Raises OSError."""
    result = LIBC.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *arguments) -> None:
    """prctl(2). Raises OSError."""
    padded = [*arguments, 0, 0, 0][:4]
    if LIBC.prctl(option, *(ctypes.c_ulong(a) if isinstance(a, int) else a for a in padded)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def landlock_version() -> int:
    """Version of Landlock the kernel offers; 0: none."""
    try:
        return call(LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def missing() -> list[str]:
    """What this machine cannot enforce; empty where the sandbox is complete."""
    if platform.system() != "Linux":
        return ["files, network and processes (they need Linux)"]
    gaps = [] if landlock_version() else ["files (the kernel has no Landlock)"]
    if platform.machine() not in ARCHITECTURES:
        gaps.append(f"network and processes (no system-call table for {platform.machine()})")
    elif not os.path.exists("/proc/sys/kernel/seccomp"):
        gaps.append("network and processes (the kernel has no seccomp filters)")
    return gaps


def limit(cpu: int, memory: int, file_size: int) -> None:
    """Hard limits: processor seconds, bytes of address space, bytes a file."""
    limits = {"CPU": cpu, "AS": memory, "FSIZE": file_size, "NOFILE": 64, "CORE": 0}
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)  # which only root may raise
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def drop_capabilities() -> None:
    """Give up what root may do beyond other users."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the interface, this process
    if LIBC.capset(header, (Capabilities * 2)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def separate() -> None:
    """Own name spaces for System V objects, message queues and the network, where that is permitted."""
    if LIBC.unshare(USER | IPC | NETWORK) != 0:  # many containers do not
        LIBC.unshare(IPC | NETWORK)


def confine_files(readable: list[str], writable: str, scopes: int) -> None:
    """Landlock: read beneath `readable`; read, make, write and remove plain files beneath `writable`; nothing else.
    Where the kernel knows how to: no TCP either, and no `scopes` of processes outside."""
    version = landlock_version()
    known = (1 << RIGHTS.get(version, 16)) - 1
    handled = (ctypes.c_uint64 * 3)(known, TCP, scopes)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = call(LANDLOCK_CREATE, ctypes.byref(handled), ctypes.c_size_t(size), ctypes.c_uint32(0))
    read = READ_FILE | READ_DIR
    granted = [(path, read) for path in readable if os.path.exists(path)]
    for path, rights in [*granted, (writable, read | WRITE_FILE | REMOVE_FILE | MAKE_FILE | TRUNCATE)]:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights &= known if os.path.isdir(path) else READ_FILE
        rule = Beneath(rights, folder)
        call(LANDLOCK_ADD, ctypes.c_int(rules), ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0))
        os.close(folder)
    call(LANDLOCK_RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL, REFUSE, NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # 0x0005....: fail with that errno
NUMBER, ARCHITECTURE = 0, 4  # byte offsets in what the filter sees; argument i is at 16 + 8 i, low half first


def rules(machine: str, pid: int, child: int | None = None) -> list[tuple[int, int, int, int]]:
    """The filter of process `pid`: (code, then, otherwise, k), where then and otherwise say how many instructions to
    skip. child: a process that it may kill."""
    audit, column = ARCHITECTURES[machine]
    low = lambda argument: (LOAD, 0, 0, 16 + 8 * argument)
    high = lambda argument: (LOAD, 0, 0, 20 + 8 * argument)
    allow, refuse = (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)
    one_of = lambda values: [step for value in values for step in ((EQUAL, 0, 1, value), allow)]
    checks = {
        "clone": [low(0), *one_of(THREAD)],
        "clone3": [(RETURN, 0, 0, NO_SUCH_CALL)],  # glibc then falls back to clone
        "kill": [low(0), *one_of([pid] if child is None else [pid, child])],
        "tgkill": [low(0), *one_of([pid])],
        # Limits may be read, not set, and text sent, not addressed: pointers must be null in both halves.
        "prlimit64": [low(2), (EQUAL, 0, 3, 0), high(2), (EQUAL, 0, 1, 0), allow],
        "sendto": [low(4), (EQUAL, 0, 3, 0), high(4), (EQUAL, 0, 1, 0), allow],
        "fcntl": [low(1), *one_of(FCNTL), (EQUAL, 0, 3, SETFL), low(2), (ANY_BIT, 1, 0, ASYNC), allow],
        "ioctl": [low(1), *one_of(IOCTL)],
        "socketpair": [low(0), (EQUAL, 0, 4, 1), low(1), (AND, 0, 0, 0xF), *one_of([1])],  # AF_UNIX, SOCK_STREAM
    }
    made = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    if machine == "x86_64":  # numbers from 2^30 on are the x32 interface to the same calls
        made += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]
    for name, numbers in CHECKED.items():
        made += [(EQUAL, 0, len(checks[name]) + 1, numbers[column]), *checks[name], refuse]
    return [*made, *one_of(numbers[column] for numbers in CALLS.values() if numbers[column] is not None), refuse]


def confine_calls(child: int | None = None) -> None:
    """Install the seccomp filter."""
    made = rules(platform.machine(), os.getpid(), child)
    array = (Filter * len(made))(*(Filter(*rule) for rule in made))
    prctl(22, 2, ctypes.byref(Program(len(made), array)))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def readable() -> list[str]:
    """What an interpreter reads while it runs."""
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache"]
    return [sys.base_prefix, *libraries, "/dev/null", "/dev/urandom"]


def confine(job: dict, gaps: list[str], child: int | None = None) -> None:
    """Give up every right, as far as this machine can take it. child: a process that may still be killed.
    Raises OSError, ValueError or OverflowError."""
    if platform.system() == "Linux":
        prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: do not outlive the parent
        drop_capabilities()
    limit(job["cpu"], job["memory"], job["file_size"])
    if not any("files" in gap for gap in gaps):
        confine_files(readable(), os.getcwd(), SOCKETS if child else SOCKETS | SIGNALS)
    if not any("network" in gap for gap in gaps):
        confine_calls(child)


def leave_library() -> None:
    """Have nothing imported from this library, or compiled into a folder, from now on."""
    sys.path[:] = [folder for folder in sys.path if folder != LIBRARY]
    sys.dont_write_bytecode = True


def run_program(gaps: list[str], reading: int, writing: int) -> None:
    """What the program's process does, until it is killed."""
    from compendium.policy_opt import host

    leave_library()
    end = host.Host(reading, writing)
    try:
        confine(end.receive(), gaps)
        end.send([])
    except (OSError, ValueError, OverflowError) as error:
        end.send([str(error)])
    end.serve()


def run_judge(gaps: list[str], reading: int, writing: int, child: int) -> tuple[dict, int]:
    """What the judge's process does: (what it found, where to write it)."""
    from compendium.policy_opt import judge, wire

    leave_library()
    job = json.load(sys.stdin)
    end, complaints = judge.Judge(reading, writing), ""
    found = dict(status=None, passed=[], outside=[], code=0)
    try:
        end.send({name: job[name] for name in ("cpu", "memory", "file_size")})
        confine(job, gaps, child)
        for trouble in end.receive():  # the program's process has the same to do
            raise OSError(trouble)
    except (OSError, ValueError, OverflowError, wire.Broken) as error:
        found["status"] = f"{UNCONFINED}: {error}"
    else:
        try:
            found["status"], found["passed"], found["outside"], complaints = judge.run(
                end, job["setup"], job["code"], job["tests"]
            )
        except wire.Broken:
            os.close(writing)  # so that it ends, if it has not yet
        except BaseException as error:
            found["status"], complaints = judge.status_of(error), judge.shown()
    if found["status"]:
        os.kill(child, signal.SIGKILL)  # whatever its threads still do
    found["code"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):  # the program may have filled the files
        sys.stdout.flush()
        sys.stderr.write(complaints)
        sys.stderr.flush()
    return found, job["verdict"]


def main() -> None:
    """Divide into two processes, of which neither has the other's memory: the program's before the job is read."""
    gaps = missing()
    to_program, from_program = os.pipe(), os.pipe()
    sys.path.insert(0, LIBRARY)
    importlib.import_module("compendium.policy_opt.wire")  # what both processes need, once
    if platform.system() == "Linux":
        separate()
    child = os.fork()
    if child:
        os.close(to_program[0])
        os.close(from_program[1])
        found, verdict = run_judge(gaps, from_program[0], to_program[1], child)
        os.write(verdict, json.dumps(found).encode())
    else:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # in place of the job
        kept = to_program[0], from_program[1]
        edges = [2, *sorted(kept), 1 << 20]
        for low, high in itertools.pairwise(edges):  # the verdict's file among them, whatever its number
            os.closerange(low + 1, high)
        run_program(gaps, *kept)
    os._exit(0)  # at once: no exit handlers, no waiting for threads


if __name__ == "__main__":
    main()
