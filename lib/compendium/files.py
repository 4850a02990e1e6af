"""Files and folders that appear whole or not at all, and never take the place of anything that was not made here.

    files.write(path, text)                       # one file, in one step
    with files.replaced(folder) as scratch:       # a folder: filled beside it, and put in its place at the end
        (scratch / "table.csv").write_text(...)
    with files.resumed(folder, key) as folder:    # a folder of finished units that outlives an interruption

A folder made here holds a *manifest*, `.made.json`, with the names of its files. Only such a folder, with nothing in it
that the manifest does not name, is ever replaced or removed; an empty one is, too, as nothing is lost with it. A folder
with other files, a link, the working folder or a folder above it is refused in one line, before any work. What was made
and cannot be put in its place in the end, as someone else's file has come there meanwhile, is kept beside it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compendium.paths import relative

MANIFEST = ".made.json"
MARK = "compendium"


class FolderError(ValueError):
    """A folder that must not be replaced, or cannot be written; the message says why and what to do."""


def write(path, content: str | bytes) -> None:
    """Write a file in one step: a reader, or an interruption, never meets half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def manifest(folder: Path, **more) -> None:
    """Write the manifest of a folder: the names of all that it holds now, and `more`."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    text = json.dumps({"made by": MARK, **more, "files": [n for n in names if n != MANIFEST]}, indent=1) + "\n"
    write(folder / MANIFEST, text)


def read_manifest(folder: Path) -> dict | None:
    """What the manifest of a folder says; None without one that was made here."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    named = found.get("files") if isinstance(found, dict) and found.get("made by") == MARK else None
    return found if isinstance(named, list) and all(isinstance(name, str) for name in named) else None


def strange(folder: Path) -> list[str]:
    """What a folder holds that its manifest does not name: sorted paths relative to it."""
    known = {MANIFEST, *(read_manifest(folder) or {}).get("files", ())}
    above = {parent.as_posix() for name in known for parent in Path(name).parents}
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        made = name in (above if path.is_dir() and not path.is_symlink() else known)
        if not made and not _passing(name):
            found.append(name)
    return sorted(found)


def _passing(path: str) -> bool:
    """Files that an editor, Jupyter or the operating system leaves anywhere, and no one would miss."""
    return Path(path).name in (".DS_Store", "Thumbs.db") or ".ipynb_checkpoints" in Path(path).parts


def check(folder, command: str | None = None) -> Path:
    """`folder` as an absolute path, if it may be made or replaced. Raises FolderError.

    command: what makes it, if its manifest says so; the results of another command are refused as well.
    """
    try:
        path = _checked(Path(os.path.abspath(folder)))  # links are kept, so that they are seen
        found = read_manifest(path)
        if command and found is not None and found.get("command") != command:
            other = found.get("command") or found.get("notebook") or "another command"
            raise FolderError(f"{relative(path)} holds the results of {other}: name another folder, or move it away")
        return path
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        raise FolderError(f"{folder} cannot be written: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]


def _checked(path: Path) -> Path:
    if path.is_symlink():
        raise FolderError(f"{relative(path)} is a link: name the folder that it leads to, or another one")
    path = path.parent.resolve() / path.name
    if path.exists() and not path.is_dir():
        raise FolderError(f"{relative(path)} is a file: name a folder for the results")
    here = Path.cwd()
    if path == here or path in here.parents:
        raise FolderError(
            f"{relative(path)} is the working folder or above it: name a folder of its own for the results"
        )
    if path.is_dir() and (found := strange(path)):
        raise FolderError(
            f"{relative(path)} holds {found[0]}{' and more' * (len(found) > 1)}, which no run wrote: name another "
            "folder, or move it away; only what a run itself wrote is replaced"
        )
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise FolderError(
            f"{relative(path)} cannot be written: {relative(existing)} is no folder that you may write to"
        )
    return path


@contextmanager
def replaced(folder, **more) -> Iterator[Path]:
    """Yield an empty scratch folder beside `folder`; when the block ends well, it takes that place, with a manifest.

    more: what else the manifest says. After an exception, or a kill, what was there is there as before. Raises
    FolderError as `check` does, before the block and again after it, when something came to be there meanwhile, or the
    disk is full; the message then says where the new files are kept.
    """
    path = check(folder, more.get("command"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.name}.", suffix=".partial", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise FolderError(f"{relative(path)} cannot be written: {_reason(error)}") from None
    with partial as beside:
        scratch = Path(beside) / "made"
        scratch.mkdir()
        yield scratch
        if not scratch.is_dir():
            raise FolderError(f"the folder that was to become {relative(path)} was removed while it was filled")
        try:
            manifest(scratch, **more)
            _swap(scratch, check(path), Path(beside) / "earlier")
        except (OSError, FolderError) as error:
            kept = path.parent / Path(beside).name.lstrip(".")
            os.replace(scratch, kept)
            said = str(error) if isinstance(error, FolderError) else f"{relative(path)}: {_reason(error)}"
            raise FolderError(f"{said}. What was made is kept in {relative(kept)}") from None


def _swap(scratch: Path, path: Path, earlier: Path) -> None:
    """Put `scratch` in the place of `path`, which goes to `earlier`; or else leave all as it was."""
    if path.exists():
        os.replace(path, earlier)
    try:
        os.replace(scratch, path)
    except BaseException:
        if earlier.exists():
            os.replace(earlier, path)
        raise


@contextmanager
def resumed(folder, key: str) -> Iterator[Path]:
    """Yield `folder` for the finished units of work that `key` describes; removed when the block ends well.

    After an exception or a kill it stays, and the next block with the same key finds its files; what another key left
    there is removed. Write its files with `write`, so that each is whole. Raises FolderError as `check` does.
    """
    path = Path(os.path.abspath(folder))
    if (read_manifest(path) or {}).get("units of") is None:
        path = check(path)
    elif read_manifest(path)["units of"] != key:
        shutil.rmtree(path)
    path.mkdir(parents=True, exist_ok=True)
    manifest(path, **{"units of": key})
    yield path
    with suppress(FileNotFoundError):  # two at once: the first to end has removed it
        shutil.rmtree(path)
