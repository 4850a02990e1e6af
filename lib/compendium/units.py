"""Sweeps: one function over many arguments, each unit stored as it is finished, on processes or a cluster.

    sweep = Sweep(one, [{"name": "iris", "seed": 0}, ...], out=folder, command="tabular comparison",
    inputs=(checkpoint,)) tables = run(sweep, processes=2)                   # {"scores": frame, ...}, and
    folder/scores.csv, folder/units.json

A *unit* is `function(**arguments) -> {table: frame}`. What it made is stored under a key of its arguments, the source
that it runs (`dependencies`), its input files and the versions of PACKAGES. So the same command, after an exception, an
interruption or a kill, makes the missing units only; so does a command with more units than the last; and a change of
code or of an input makes those units again that depend on it. The tables are the units' rows in the order of the units,
to the byte the same wherever and in whatever order they were made. `units.json` says which rows are whose.
"""

import csv
import functools
import io
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pandas as pd

from compendium import dependencies, files
from compendium.paths import relative
from compendium.workers import Lost, Progress, pool

PACKAGES = "torch", "transformers", "numpy", "pandas", "scikit-learn", "scipy"
INDEX = "units.json"
DIGITS = "%.6g"


@dataclass(frozen=True)
class Sweep:
    """What is to be made. Raises ValueError for two units that are the same."""

    function: Callable[..., dict[str, pd.DataFrame]]  # of a module, so that other processes find it
    units: list[dict]  # its keywords, plain data, one dict per unit
    out: Path | None  # the folder of the tables; None: they are not written
    command: str  # whose results these are: another's are not replaced
    inputs: tuple[Path, ...] = ()  # files that every unit reads
    notes: dict = field(default_factory=dict)  # what else units.json says
    digits: str = DIGITS  # of the numbers in the tables

    def __post_init__(self):
        seen = set()
        for unit in self.units:
            if (key := self.key(unit)) in seen:
                raise ValueError(f"two units are the same: {unit}")
            seen.add(key)

    def key(self, unit: dict) -> str:
        """What a unit's rows depend on, as 24 digits."""
        name = f"{self.function.__module__}.{self.function.__qualname__}"
        inputs = [_sha256(path) for path in self.inputs]
        return dependencies.digest(
            [name, unit, dependencies.code(self.function.__module__), [inputs, _versions()], self.digits]
        )


@functools.cache
def _versions() -> list[str]:
    """Of PACKAGES; one that a study does without may not be there."""

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "none"

    return [version(name) for name in PACKAGES]


def _sha256(path: Path) -> str:
    stamp = os.stat(path)
    return _known_sha256(str(path), stamp.st_mtime_ns, stamp.st_size)


@functools.cache
def _known_sha256(path: str, *_) -> str:
    return dependencies.sha256(Path(path))


@functools.cache
def processor() -> str:
    """What arithmetic runs on here: training makes last digits of another processor's into larger differences."""
    from torch.backends.cpu import get_cpu_capability

    try:
        names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        names = []
    return f"{(names or [platform.processor() or platform.machine()])[0].strip()}, {get_cpu_capability()}"


class Rows(dict):
    """The rows of one unit as text: {table: (header, lines)}, each line a list of cells.

    made_on: the `processor` that made them, "" if that is not known.
    """

    def __init__(self, tables=(), made_on: str = ""):
        super().__init__(tables)
        self.made_on = made_on

    @classmethod
    def of(cls, tables: dict[str, pd.DataFrame], digits: str = DIGITS) -> "Rows":
        """What this machine has made, as text."""
        made = cls(made_on=processor())
        for name, table in tables.items():
            if len(table):
                header, *lines = csv.reader(io.StringIO(table.to_csv(index=False, float_format=digits)))
                made[name] = (header, lines)
        return made


# -- running ----------------------------------------------------------------------------------------------------------


def run(
    sweep: Sweep,
    *,
    processes: int = 1,
    scheduler: str | None = None,
    shard: tuple[int, int] | None = None,
    progress: bool = True,
) -> dict[str, pd.DataFrame]:
    """Make the missing units and write the tables to `sweep.out`, all or none; returns them by name.

    processes: of one thread each; 1: this one. scheduler: address of a Dask cluster, instead. shard: (i, n) makes every
    n-th unit from the i-th and leaves them in a folder beside `out`, for `merge`; the tables are then empty.
    Raises what a unit raises, after those under way have been stored; Lost when a worker is killed; FolderError.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}: it must be at least 1")
    if sweep.out is None:
        return _in_memory(sweep, processes, progress)
    out = files.check(sweep.out, sweep.command)
    place = out.with_name(f".{out.name}.units") if shard is None else shard_folder(out, *shard)
    with _kept(place) as store:
        earlier = read_rows(out)
        wanted = [unit for i, unit in enumerate(sweep.units) if shard is None or i % shard[1] == shard[0] - 1]
        missing = [u for u in wanted if sweep.key(u) not in earlier and not (store / f"{sweep.key(u)}.json").exists()]
        _make(sweep, missing, store, len(wanted), processes, scheduler, progress)
        if shard is not None:
            return {}
        done = [earlier.get(sweep.key(unit)) or _load(store / f"{sweep.key(unit)}.json") for unit in wanted]
        write(sweep, done)
    shutil.rmtree(place, ignore_errors=True)
    return read(out)


def _in_memory(sweep: Sweep, processes: int, progress: bool) -> dict[str, pd.DataFrame]:
    """The tables of a sweep that is not written, with all digits."""
    shown, done = Progress(len(sweep.units), what=sweep.command, silent=not progress), {}
    with pool(sweep.function, processes, None) as submit:
        for unit, tables in submit(sweep.units):
            done[sweep.key(unit)] = tables
            shown.step()
    names = dict.fromkeys(name for unit in sweep.units for name in done[sweep.key(unit)])
    parts = {name: [done[sweep.key(unit)].get(name) for unit in sweep.units] for name in names}
    return {
        name: pd.concat([p for p in found if p is not None and len(p)], ignore_index=True)
        for name, found in parts.items()
    }


def _make(sweep: Sweep, units: list[dict], store: Path, total: int, processes, scheduler, progress: bool) -> None:
    """Make units and store each as it is finished."""
    shown = Progress(total, total - len(units), what=sweep.command, silent=not progress)
    with pool(sweep.function, processes if len(units) > 1 else 1, scheduler) as submit:
        try:
            for unit, tables in submit(units):
                made = Rows.of(tables, sweep.digits)
                text = json.dumps({"processor": made.made_on, "tables": made}, ensure_ascii=False)
                files.write(store / f"{sweep.key(unit)}.json", text)
                shown.step()
        except BrokenProcessPool:
            raise Lost(processes) from None


@contextmanager
def _kept(folder: Path) -> Iterator[Path]:
    """A folder of finished units; those of other keys are left alone, since they may be wanted again."""
    if files.read_manifest(folder) is None:
        files.check(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.manifest(folder, **{"units of": folder.name})
    yield folder


def shard_folder(out: Path, i: int, n: int) -> Path:
    """Where `run` leaves the units of a shard. Raises ValueError unless 1 <= i <= n."""
    if not 1 <= i <= n:
        raise ValueError(f"shard {i}/{n}: write it as 1/{max(n, 1)} to {max(n, 1)}/{max(n, 1)}")
    return out.with_name(f"{out.name}.shard-{i}-of-{n}")


def merge(sweep: Sweep, folders: Iterable[Path]) -> dict[str, pd.DataFrame]:
    """The tables from the units of shards, as one `run` would have written them. Raises ValueError for what lacks."""
    out, found = files.check(sweep.out, sweep.command), {}
    for folder in folders:
        found |= {path.stem: path for path in Path(folder).glob("*.json")}
    lacking = [unit for unit in sweep.units if sweep.key(unit) not in found]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(sweep.units)} units are in none of these folders, {lacking[0]} among them: "
            "give all shards of the same settings, code and data"
        )
    write(sweep, [_load(found[sweep.key(unit)]) for unit in sweep.units])
    return read(out)


def _load(path: Path) -> Rows:
    found = json.loads(path.read_text(encoding="utf-8"))
    return Rows(found["tables"], found["processor"])


# -- tables -----------------------------------------------------------------------------------------------------------


def write(sweep: Sweep, done: list[Rows]) -> None:
    """The tables of all units, and which rows are whose, into `sweep.out`."""
    headers: dict[str, list[str]] = {}
    for rows in done:
        for name, (header, _) in rows.items():
            known = headers.setdefault(name, [])
            known += [column for column in header if column not in known]
    index = [
        {"arguments": unit, "key": sweep.key(unit), **({"processor": rows.made_on} if rows.made_on else {}), "rows": {}}
        for unit, rows in zip(sweep.units, done, strict=True)
    ]
    with files.replaced(sweep.out, command=sweep.command) as scratch:
        for name, columns in headers.items():
            text, written = io.StringIO(), 0
            table = csv.writer(text, lineterminator="\n")
            table.writerow(columns)
            for entry, rows in zip(index, done, strict=True):
                if name in rows:
                    header, lines = rows[name]
                    table.writerows(
                        [dict(zip(header, line, strict=True)).get(c, "") for c in columns] for line in lines
                    )
                    entry["rows"][name] = [written, written + len(lines)]
                    written += len(lines)
            files.write(scratch / f"{name}.csv", text.getvalue())
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in index)
        notes = "".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)},\n" for k, v in sweep.notes.items())
        files.write(scratch / INDEX, f'{{{notes}"units": [\n{lines}\n]}}\n')


def index(folder: Path) -> dict:
    """What `units.json` of a folder of tables says; {"units": []} for none."""
    path = Path(folder) / INDEX
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"units": []}


def read_rows(folder: Path) -> dict[str, Rows]:
    """The rows of every unit that is in the tables of a folder, by key."""
    folder, tables = Path(folder), {}
    entries = index(folder)["units"]
    for name in {name for entry in entries for name in entry["rows"]}:
        with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            tables[name] = list(csv.reader(file))
    return {
        entry["key"]: Rows(
            {name: (tables[name][0], tables[name][1 + a : 1 + b]) for name, (a, b) in entry["rows"].items()},
            entry.get("processor", ""),
        )
        for entry in entries
    }


def read(folder: Path, again: str | None = None) -> dict[str, pd.DataFrame]:
    """The tables in a folder, by name. again: what makes them, which the FileNotFoundError for none says."""
    paths = sorted(Path(folder).glob("*.csv"))
    if not paths:
        raise FileNotFoundError(f"{relative(folder)} holds no tables" + (f": {again} makes them" if again else ""))
    return {path.stem: pd.read_csv(path) for path in paths}
