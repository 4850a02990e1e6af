"""Long work in units: each is stored as it is finished, so that a failure costs what was under way and nothing else.

    with units.beside(out, settings, KNOWN) as store:          # a hidden folder beside the results
        done = [units.once(store, study, *job) for job in jobs]    # in this process, or in any other
        with files.replaced(out) as scratch: ...

The same command, after an exception, an interruption or a kill, finds the finished units and makes the others; what it
writes is to the byte what an undisturbed run would have written. Units of other settings, other input files, other code
or other versions of the packages that compute them are thrown away.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from joblib import Parallel, delayed
from tqdm import tqdm

from compendium import files

PACKAGES = "torch", "transformers", "numpy", "pandas", "scikit-learn", "scipy"


class Lost(RuntimeError):
    """A worker process that ended before its unit did; the message says what is kept and what to do."""

    def __init__(self, processes: int, kept: bool):
        rest = "the same command goes on, finished units are kept" if kept else "then run it again"
        super().__init__(f"a worker was killed, perhaps for want of memory: lower processes ({processes}); {rest}")


def key(settings, *inputs: Path) -> str:
    """What units depend on, as one digest: settings, input files, this library's code, versions of PACKAGES."""
    code = sorted(Path(__file__).parent.rglob("*.py"))
    contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in [*code, *inputs]]
    return _digest([settings, contents, [metadata.version(name) for name in PACKAGES]])


def _digest(what) -> str:
    return hashlib.sha256(json.dumps(what, default=repr).encode()).hexdigest()[:24]


@contextmanager
def beside(out: Path, settings, *inputs: Path, folder: bool = True, command: str | None = None) -> Iterator[Path]:
    """Yield the hidden folder beside `out` that holds the units of `settings`; it goes when the block ends well.

    folder: whether `out` is one; otherwise it is a file. command: whose results it holds, if any. Raises
    `files.FolderError`, before any work, where `out` may not be written.
    """
    out = files.check(out, command) if folder else _file(out)
    with files.resumed(out.with_name(f".{out.name}.units"), key(settings, *inputs)) as store:
        yield store


def _file(out) -> Path:
    """`out` as an absolute path, if a file may be written there."""
    out = Path(out).absolute()
    if out.is_dir():
        raise files.FolderError(f"{out} is a folder: name a file for the table")
    existing = next(path for path in out.parents if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise files.FolderError(f"{out} cannot be written: {existing} is no folder that you may write to")
    return out


def spread(
    function: Callable,
    jobs: list[dict],
    *,
    processes: int,
    what: str = "runs",
    progress: bool = True,
    store: Path | None = None,
) -> list:
    """`once(store, function, **job)` for every job, in order, over joblib's processes. Raises what a job raises, and
    Lost when a worker is killed."""
    if processes < 1:
        raise ValueError(f"processes is {processes}: it must be at least 1")
    work = (delayed(once)(store, function, **job) for job in jobs)
    try:
        done = Parallel(processes, return_as="generator")(work)
        return list(tqdm(done, total=len(jobs), desc=what, disable=None if progress else True))
    except BrokenProcessPool:
        raise Lost(processes, store is not None) from None


def once(store: Path | None, function: Callable, /, *arguments, **keywords):
    """`function(*arguments, **keywords)`, stored; or what was stored of it before. No store, no storing.

    Arguments must be plain data or have a `repr` that tells them apart.
    """
    if store is None:
        return function(*arguments, **keywords)
    name = _digest([f"{function.__module__}.{function.__qualname__}", arguments, keywords])
    path = Path(store) / f"{name}.pickle"
    if path.exists():
        try:
            return pickle.loads(path.read_bytes())
        except Exception:  # whatever is wrong with it, the unit can be made again
            path.unlink()
    made = function(*arguments, **keywords)
    files.write(path, pickle.dumps(made))
    return made
