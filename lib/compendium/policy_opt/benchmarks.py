"""GSM8K, from a JSON-lines file or a hub data set, and the reader of such records."""

import re
from pathlib import Path

from compendium import records
from compendium.paths import relative
from compendium.policy_opt import numbers
from compendium.policy_opt.word_problems import MARKERS, Problem


def gsm8k(source: str = "openai/gsm8k", *, revision: str | None = None, split: str = "test") -> list[Problem]:
    """Word problems in GSM8K format: items with `question` and `answer`, the latter ending in "#### number".

    source: a JSON-lines file, or a hub data set with `revision`, a 40-digit commit, and `split`.
    Raises ValueError naming the first item that is not in the format, or why the set cannot be had.
    """
    found = []
    for where, item in read_records(source, "main", revision, split):
        question, solution = item.get("question"), item.get("answer")
        ends = isinstance(solution, str) and MARKERS[1] in solution
        if not isinstance(question, str) or not question.strip() or not ends:
            raise ValueError(f"{where}: it needs a question, and an answer that ends in '#### number'")
        written = solution[solution.rindex(MARKERS[1]) + len(MARKERS[1]) :].strip()
        answer = numbers.read(written)
        if answer is None:
            raise ValueError(
                f"{where}: its answer ends in {written[:40]!r}, which cannot be read as one number: write it as "
                "'#### 1234.5'"
            )
        found.append(Problem(question.strip(), solution.strip(), answer))
    return found


def read_records(source: str, name: str | None, revision: str | None, split: str):
    """(where, item) of each item of a JSON-lines file or a hub data set; `where` names it in error messages."""
    if Path(source).is_file():
        shown, items = relative(source), [item for _, item in records.lines(source)]
    else:
        shown, items = source, from_hub(source, name, revision, split)
    if not items:
        raise ValueError(f"{shown} holds no items")
    for i, item in enumerate(items, 1):
        yield f"{shown}, item {i}", item if isinstance(item, dict) else {}


def from_hub(source: str, name: str | None, revision: str | None, split: str) -> list[dict]:
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
