"""The executed copy of a notebook: where it may go, and without what differs between two runs that do the same."""

import os
import re
from pathlib import Path

from compendium import files
from compendium.paths import EXECUTED, FIGURES, NOTEBOOKS, relative

KERNEL = "python3"
STYLED = re.compile(r"\bT_[0-9a-f]{5}(?=[_\"\s])")  # a styled table's own name, drawn anew each time
ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")  # of an object in memory, as its repr may show it
WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar, by a random name that means nothing later


def normalise(notebook, renames: dict[str, str] | None = None):
    """Remove all that differs between identical runs: times, durations, progress bars, addresses, the `provenance`
    output, and where a stream happened to be cut into pieces. renames: texts to replace in sources and outputs."""
    notebook.metadata = {"kernelspec": {"name": KERNEL, "display_name": "Python 3", "language": "python"}}

    def renamed(text: str) -> str:
        for old, new in (renames or {}).items():
            text = text.replace(old, new)
        return text

    def settled(value):
        """A text, or all texts of an output that is JSON."""
        if isinstance(value, str):
            return STYLED.sub("T_0", ADDRESS.sub(" at 0x0", renamed(value)))
        if isinstance(value, dict):
            return {key: settled(item) for key, item in value.items()}
        return [settled(item) for item in value] if isinstance(value, list) else value

    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        cell.id = f"cell-{number}"
        cell.source = renamed(cell.source)
        if cell.cell_type == "code":
            cell.outputs = [] if "provenance" in tags else _joined(cell.outputs)
            for output in cell.outputs:
                for part in ("text", "data"):
                    if part in output:
                        output[part] = settled(output[part])
    return notebook


def _joined(outputs: list) -> list:
    """Outputs without metadata, stderr and widgets, pieces of standard output that follow each other being one."""
    joined = []
    for output in outputs:
        if output.get("name") == "stderr" or WIDGET in output.get("data", {}):
            continue
        if output.output_type != "stream":
            output.metadata = {}
        elif joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
            continue
        else:
            output.pop("metadata", None)
        joined.append(output)
    return joined


def beside(executed: Path) -> tuple[Path, Path]:
    """Where the copy of a run that fails goes, and the provenance of one that does not."""
    return executed.with_suffix(".failed.ipynb"), executed.with_suffix(".provenance.json")


def ran_mark(executed: Path) -> Path:
    """A file beside an executed copy that git ignores: a clone that lacks it has not run the notebook."""
    return executed.with_suffix(".ran")


def check_copy(path: Path, executed: Path, out: Path | None) -> None:
    """Raise FolderError if the executed copy would take the place of something that is not one, or lie in the results.

    path: the notebook; out: the folder for results, which is replaced whole, or None.
    """
    failed, noted = beside(executed)
    if executed.resolve() == path.resolve():
        raise files.FolderError(f"{relative(executed)} is the notebook itself: give --executed another name")
    if executed.is_dir():
        raise files.FolderError(f"{relative(executed)} is a folder: give --executed a file's name")
    out = out and Path(os.path.realpath(out))
    if out and any(out == copy or out in copy.parents or copy in out.parents for copy in (executed, failed, noted)):
        raise files.FolderError(f"{relative(executed)} lies in the folder for results: give --executed another place")
    ours = {executed: noted.exists(), failed: _says(failed, b'"papermill"'), noted: _says(noted, b'"parameters"')}
    for there, made in ours.items():
        if there.exists() and not made and not executed.is_relative_to(EXECUTED):
            raise files.FolderError(
                f"{relative(there)} is there, and no run wrote it: give --executed another name, or move it"
            )


def _says(path: Path, mark: bytes) -> bool:
    return path.is_file() and mark in path.read_bytes()


def check_out(path: Path, out: Path) -> dict:
    """What the manifest of a notebook's results says besides. Raises FolderError where those of another one are.

    Under figures/, a notebook's place says whose results are there, and the manifest nothing.
    """
    own = path.is_relative_to(NOTEBOOKS) and FIGURES / path.relative_to(NOTEBOOKS).with_suffix("")
    at_home, of = bool(own) and os.path.realpath(out) == os.path.realpath(own), relative(path)
    found = files.read_manifest(out)
    if found is not None and found.get("notebook", of if at_home else None) != of:
        other = found.get("notebook", "another notebook or command")
        raise files.FolderError(f"{relative(out)} holds the results of {other}: name another folder, or move it away")
    return {} if at_home else {"notebook": of}
