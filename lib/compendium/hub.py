"""Items of a data set: a JSON-lines file, or a hub data set at one commit."""

import re
from collections.abc import Iterator
from pathlib import Path

from compendium import records
from compendium.paths import relative


def items(source: str, name: str | None, revision: str | None, split: str) -> Iterator[tuple[str, dict]]:
    """(where, item) of each item; `where` names it in error messages, and an item that is no mapping comes as {}.

    source: a JSON-lines file, or owner/name on a hub, with `name`, its configuration, `revision`, a 40-digit commit,
    and `split`. Raises ValueError for a set that cannot be had or holds nothing.
    """
    if Path(source).is_file():
        shown, found = relative(source), [item for _, item in records.lines(source)]
    else:
        shown, found = source, _fetched(source, name, revision, split)
    if not found:
        raise ValueError(f"{shown} holds no items")
    for i, item in enumerate(found, 1):
        yield f"{shown}, item {i}", item if isinstance(item, dict) else {}


def _fetched(source: str, name: str | None, revision: str | None, split: str) -> list[dict]:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.endswith((".jsonl", ".json")):
        raise ValueError(f"{source!r} is neither a file nor a hub id such as 'owner/data'")
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ValueError(f"{source}: give revision=, the data set's 40-digit commit, so that a rerun asks the same")
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError("hub data sets need the package `datasets`: pip install datasets, or name a file") from None
    try:
        return load_dataset(source, name, split=split, revision=revision).to_list()
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load {source}: {str(error).splitlines()[0]}") from None
