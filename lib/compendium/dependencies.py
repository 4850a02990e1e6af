"""What a module runs: every module of this library that it imports, at any depth, read from the source alone.

Stages of the pipeline go stale, and stored units are made again, when one of these files changes, and not otherwise.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
APART = ("paths", "__init__")  # folder names, and what a section says of itself: no result depends on them
RUNNERS = ("units.py", "workers.py")  # call a unit and keep its rows: they do not change what it makes


def module(name: str) -> Path | None:
    """The file of a module or package of this library; None for all else."""
    if name.split(".")[0] != "compendium":
        return None
    path = LIBRARY / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported(source: str) -> set[Path]:
    """Files of the library that this source imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {path for path in map(module, names) if path}


def closure(start: Iterable[Path], without: Iterable[Path] = ()) -> list[Path]:
    """These files and all that they import, sorted, but for `without` and what is imported through these alone."""
    todo, found, without = set(start), set(), set(without)
    while todo:
        if (path := todo.pop()) in without:
            continue
        found.add(path)
        todo |= set() if apart(path) else imported(path.read_text(encoding="utf-8")) - found
    return sorted(path for path in found if not apart(path))


def apart(path: Path) -> bool:
    """Whether a file is of APART; the __init__ of a package within a section defines what it offers, so it counts."""
    return path.stem in APART and (path.stem != "__init__" or len(path.relative_to(LIBRARY).parts) <= 3)


@functools.cache
def code(name: str) -> str:
    """A digest of the source of the module `name` and of all that it imports but RUNNERS; of nothing, where it is none
    of ours."""
    start, runners = module(name), [LIBRARY / "compendium" / file for file in RUNNERS]
    files = closure({start}, runners) if start else []
    digests = [(file.relative_to(LIBRARY).as_posix(), sha256(file)) for file in files]
    return hashlib.sha256(repr(digests).encode()).hexdigest()


def digest(what) -> str:
    """24 digits that change with what is plain data."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]


def sha256(path: Path) -> str:
    """The digest of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
