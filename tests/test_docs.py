"""What README, the book's pages and the notebooks name is there: modules, commands, files, links."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import nbformat
import pytest

from compendium import settings
from compendium.paths import ROOT, relative

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")] + sorted(
    (ROOT / "book").glob("*.md")
)
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))


def text_of(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")


def there(dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        for name in parts[i:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


of_all = pytest.mark.parametrize("path", PAGES + NOTEBOOKS, ids=relative)


@of_all
def test_names_of_the_library_are_there(path):
    text = text_of(path)
    for module, names in re.findall(r"^from (compendium[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
        for name in names.split(","):
            assert there(f"{module}.{name.split(' as ')[0].strip()}"), f"from {module} import {name}"
    for dotted in re.findall(r"`(compendium(?:\.\w+)+)(?:\(.*?\))?`", text):
        assert there(dotted), dotted
    for module in re.findall(r"python -m (compendium[\w.]*)", text):
        assert importlib.util.find_spec(module), module


@of_all
def test_files_that_are_named_are_there(path):
    text = text_of(path)
    for name in re.findall(r"`((?:notebooks|figures|lib|data|tests|benchmarks|book|tools)/[\w./-]+)`", text):
        if not re.search(r"NAME|SECTION|PART|\*", name):
            place = name.rstrip("/")
            assert (ROOT / place).exists() or place.startswith(("data/models", "data/policies/runs")), name
    for target in re.findall(r"(?<!!)\[[^\]]+\]\(([^)#]+)[^)]*\)", text):
        if not re.match(r"https?:|mailto:", target) and path.name != "index.md" and path.name != "teach.md":
            assert (path.parent / target).exists(), target


def test_commands_on_notebooks_name_parameters_that_are_there():
    from compendium import run

    for path in PAGES:
        for line in re.findall(
            r"^python -m compendium\.run (.+?)$", path.read_text().replace("\\\n", " "), re.MULTILINE
        ):
            words = shlex.split(line, comments=True)
            declared = run.parameters(run.read_notebook(ROOT / words[0]))
            for i, word in enumerate(words):
                if word == "-p":
                    assert words[i + 1] in declared, f"{words[0]} -p {words[i + 1]}"
                    settings.validate({words[i + 1]: settings.parse(words[i + 2], "-p")}, declared)
