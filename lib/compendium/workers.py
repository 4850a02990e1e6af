"""Where units are made: in this process, in processes beside it, or on a Dask cluster; and how far they are."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager

from tqdm import tqdm

PATIENCE = 20.0  # seconds to wait for a scheduler
SPINS = "1000"  # of a thread that waits for work: by default it keeps its core, and two jobs slow one another ten-fold


class Lost(RuntimeError):
    """A worker process that ended before its unit did; the message says what is kept and what to do."""

    def __init__(self, processes: int):
        super().__init__(
            f"a worker was killed, perhaps for want of memory: lower processes ({processes}); the same command goes "
            "on, finished units are kept"
        )


def _leave_with_parent() -> None:
    """Workers wait for work for ever, and hold gigabytes, if their parent is killed: watch it. And an interruption from
    the keyboard, which reaches them too, ends them at once and without a traceback."""

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: os._exit(1))


def _call(function: Callable, unit: dict):
    return function(**unit)


def give_way() -> None:
    """Processes that begin from here on share their cores; the order of sums, and so every digit, stays what it was."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


@contextmanager
def pool(function: Callable, processes: int, scheduler: str | None) -> Iterator[Callable[[list[dict]], Iterable]]:
    """Yield `submit(units) -> iterator of (unit, result)`, as they are finished; the first exception is raised once
    those under way have been yielded. Not through joblib: its workers are replaced when their memory grows, and with
    them goes what a function has cached. Raises ImportError and OSError for a cluster that cannot be reached."""
    if scheduler is not None:
        with _cluster(scheduler) as client:
            yield lambda units: _drain({client.submit(_call, function, u, pure=False): u for u in units}, _dask_done)
    elif processes == 1:
        yield lambda units: ((unit, function(**unit)) for unit in units)
    else:
        give_way()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_with_parent) as workers:
            yield lambda units: _drain({workers.submit(_call, function, unit): unit for unit in units}, as_completed)


def _dask_done(futures):
    from distributed import as_completed as completed

    return completed(futures)


@contextmanager
def _cluster(address: str):
    try:
        from distributed import Client
    except ImportError:
        raise ImportError("a Dask cluster needs: pip install -r requirements-cluster.txt") from None
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise OSError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        yield client


def _drain(futures: dict, completed: Callable) -> Iterator[tuple[dict, dict]]:
    """Results as they come; after a failure no further unit is begun, and it is raised after those under way."""
    failed = None
    for future in completed(list(futures)):
        if future.cancelled():
            continue
        try:
            result = future.result()
        except Exception as error:
            if failed is None:
                failed = error
                for other in futures:
                    other.cancel()
            continue
        yield futures[future], result
    if failed is not None:
        raise failed


class Progress:
    """How many of the units are there and how long the rest may take: a line that updates, or, where the output is no
    terminal, a plain line every half minute."""

    EVERY = 30.0

    def __init__(self, total: int, kept: int = 0, what: str = "units", silent: bool = False):
        self.total, self.done, self.kept, self.what = total, kept, kept, what
        self.begun = self.said = time.monotonic()
        self.silent = silent or total == kept
        terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=kept, desc=what, unit="unit") if terminal and not self.silent else None
        if not self.silent and not terminal:
            self._say(f"{what}: {total} units" + (f", {kept} of them kept from before" if kept else ""))

    def step(self) -> None:
        """One more unit is finished."""
        self.done, now = self.done + 1, time.monotonic()
        if self.bar is not None:
            self.bar.update()
            if self.done == self.total:
                self.bar.close()
        elif not self.silent and (now - self.said > self.EVERY or self.done == self.total):
            self.said, spent = now, now - self.begun
            left = spent / (self.done - self.kept) * (self.total - self.done)
            self._say(f"{self.what}: {self.done} of {self.total} units, {spent / 60:.1f} min, {left / 60:.1f} min left")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
