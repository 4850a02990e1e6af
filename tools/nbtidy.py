"""Bring notebooks into the form they are committed in, so that diffs show changes of content only.

    python tools/nbtidy.py notebooks/*/*.ipynb           # rewrite
    python tools/nbtidy.py --check notebooks/*/*.ipynb   # list files that are not tidy, exit 1

Outputs, counts and metadata except tags go: what a quick run prints is kept apart (tools/quick.py), what a full run
shows is in the executed copies.
"""

import sys
from pathlib import Path

import nbformat


def tidy(text: str) -> str:
    """The tidy form of a notebook's JSON."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        cell.id = f"cell-{number}"
        cell.source = cell.source.rstrip()
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
    return nbformat.writes(notebook, indent=1) + "\n"


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    untidy = []
    for path in (Path(a) for a in arguments if a != "--check"):
        text = path.read_text()
        new = tidy(text)
        if new != text:
            untidy.append(path)
            if not check:
                path.write_text(new)
    for path in untidy:
        print(f"{'not tidy' if check else 'tidied'}: {path}")
    return int(check and bool(untidy))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
