"""Runs inside the sandbox's process: gives up every right, then runs the program. Standard library only.

`sandbox.run` starts this file in a fresh interpreter, with the job as JSON on standard input. The order matters: limits
first, then files, then system calls; nothing here can be undone by the program afterwards.

- **Limits** (setrlimit): processor seconds, address space, size of a file, open files, no core dump. As root, all
  capabilities are dropped before, or root could raise them again.
- **Files** (Landlock, Linux 5.13 or newer): the interpreter's library can be read, and files in the scratch folder
  made, written and removed. Nothing else can be opened, not even for reading: no test answers, no keys, no /proc.
- **System calls** (seccomp filter): no new process, no socket, no signal to another process, no reading of another
  process's memory, no change of a file's owner or mode, no raising of limits, no memory that outlives the process.
  A refused call fails with PermissionError and the program goes on.

Both mechanisms need no privilege, and work inside containers where name spaces are forbidden.
"""

import ctypes
import json
import os
import platform
import resource
import signal
import sys
import traceback

UNCONFINED = "cannot confine the program"  # begins the status of a program that was therefore not run

# Audit architecture, and the position of its numbers in CALLS.
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# System calls refused, as numbered on x86_64 and aarch64 (Linux's unistd.h); None where there is no such call.
CALLS = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "socket": (41, 198),
    "io_uring_setup": (425, 425), "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "setrlimit": (160, 164), "unshare": (272, 97),
    "setns": (308, 268), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "prctl": (157, 167), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
}  # fmt: skip
# Calls refused or allowed by their arguments.
CLONE, CLONE3, TGKILL, PRLIMIT = (56, 220), (435, 435), (234, 131), (302, 261)
CLONE_THREAD = 0x10000

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same on all architectures
READ_FILE, READ_DIR, WRITE_FILE, REMOVE_FILE, MAKE_FILE, TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 5, 1 << 8, 1 << 14
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights a version of Landlock knows; 16 from version 5 on

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


class Filter(ctypes.Structure):
    """One instruction of the kernel's packet-filter language, in which seccomp rules are written."""

    _fields_ = [
        ("code", ctypes.c_uint16), ("then", ctypes.c_uint8), ("otherwise", ctypes.c_uint8), ("k", ctypes.c_uint32),
    ]  # fmt: skip


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


def confine_files(readable: list[str], writable: str) -> None:
    """Landlock: read beneath `readable`; read, make, write and remove plain files beneath `writable`; nothing else."""
    version = landlock_version()
    known = (1 << RIGHTS.get(version, 16)) - 1
    handled = ctypes.c_uint64(known)
    rules = call(LANDLOCK_CREATE, ctypes.byref(handled), ctypes.c_size_t(8), ctypes.c_uint32(0))
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


LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, REFUSE, NO_SUCH_CALL = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # 0x0005....: fail with that errno
NUMBER, ARCHITECTURE = 0, 4  # byte offsets in what the filter sees; argument i is at 16 + 8 i, low half first


def rules(machine: str, pid: int) -> list[tuple[int, int, int, int]]:
    """The filter: (code, then, otherwise, k), where then and otherwise say how many instructions to skip."""
    audit, column = ARCHITECTURES[machine]
    low = lambda argument: (LOAD, 0, 0, 16 + 8 * argument)
    high = lambda argument: (LOAD, 0, 0, 20 + 8 * argument)
    allow, refuse = (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)
    made = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    if machine == "x86_64":  # numbers from 2^30 on are the x32 interface to the same calls
        made += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, KILL)]
    for numbers in CALLS.values():
        if numbers[column] is not None:
            made += [(EQUAL, 0, 1, numbers[column]), refuse]
    made += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, NO_SUCH_CALL)]  # glibc then falls back to clone
    made += [(EQUAL, 0, 4, CLONE[column]), low(0), (ANY_BIT, 0, 1, CLONE_THREAD), allow, refuse]
    made += [(EQUAL, 0, 4, TGKILL[column]), low(0), (EQUAL, 0, 1, pid), allow, refuse]
    # Limits may be read, not set: the pointer to new ones must be null in both halves.
    made += [(EQUAL, 0, 6, PRLIMIT[column]), low(2), (EQUAL, 0, 3, 0), high(2), (EQUAL, 0, 1, 0), allow, refuse]
    return [*made, allow]


def confine_calls() -> None:
    """Install the seccomp filter."""
    made = rules(platform.machine(), os.getpid())
    array = (Filter * len(made))(*(Filter(*rule) for rule in made))
    prctl(22, 2, ctypes.byref(Program(len(made), array)))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def readable() -> list[str]:
    """What an interpreter reads while it runs."""
    libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache"]
    return [sys.base_prefix, *libraries, "/dev/null", "/dev/urandom"]


def run(job: dict) -> tuple[str, list[bool]]:
    """Run the program, then each test in its name space; ("finished" or what stopped it, passed)."""
    space = {"__name__": "__main__"}
    passed = [False] * len(job["tests"])
    try:
        exec(compile(job["setup"] + "\n" + job["code"], "<program>", "exec"), space)
    except MemoryError:
        return "memory", passed
    except BaseException:  # SystemExit too: leaving early must not count as finishing
        traceback.print_exc()
        return "error", passed
    for i, test in enumerate(job["tests"]):
        try:
            exec(compile(test, f"<test {i + 1}>", "exec"), space)
            passed[i] = True
        except BaseException:
            traceback.print_exc()
    return "finished", passed


def confine(job: dict) -> None:
    """Give up every right, as far as this machine can take it. Raises OSError, ValueError or OverflowError."""
    gaps = missing()
    if platform.system() == "Linux":
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: do not outlive the parent
        prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
        drop_capabilities()
    limit(job["cpu"], job["memory"], job["file_size"])
    if not any("files" in gap for gap in gaps):
        confine_files(readable(), os.getcwd())
    if not any("network" in gap for gap in gaps):
        confine_calls()


def main() -> None:
    job = json.load(sys.stdin)
    write, dump, leave = os.write, json.dumps, os._exit  # before the program can put others in their place
    try:
        confine(job)
    except (OSError, ValueError, OverflowError) as error:
        status, passed = f"{UNCONFINED}: {error}", []
    else:
        status, passed = run(job)
    sys.stdout.flush()
    sys.stderr.flush()
    write(1, f"\n{job['nonce']} {dump([status, passed])}".encode())
    leave(0)  # at once: no exit handlers, no waiting for threads


if __name__ == "__main__":
    main()
