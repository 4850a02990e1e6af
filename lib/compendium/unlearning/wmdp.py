"""Multiple-choice sets in the WMDP format, as questions that `facts.score` asks: for users with models that know them.

    questions = hazard.load("wmdp_bio.jsonl")                              # a local file, one item a line
    questions = hazard.load("cais/wmdp", "wmdp-bio", revision="...")       # a hub data set, at a commit
    facts.score(model, tokenizer, questions).correct.mean()

An item has `question`, four `choices` and the index `answer`. The compendium ships none of them and runs on facts about
the world instead; what the model picks is the choice with the highest log-probability per token, as everywhere here.
"""

import re
from pathlib import Path

import pandas as pd

from compendium import facts, records
from compendium.paths import relative

PROMPT = "Question: {question}\nAnswer:"


def load(source: str, name: str | None = None, *, revision: str | None = None, split: str = "test") -> pd.DataFrame:
    """Questions with columns as `facts.questions` has them, the right option first.

    source: a JSON-lines file, or a hub data set (with `name`, its configuration, and `revision`, a 40-digit commit).
    Raises ValueError for items that are not in the format, naming the first one, and when a data set cannot be had.
    """
    if Path(source).is_file():
        items = [item for _, item in records.lines(source)]
        where = relative(source)
    else:
        items, where = _from_hub(source, name, revision, split), source
    if not items:
        raise ValueError(f"{where} holds no questions")
    rows = []
    for number, item in enumerate(items, 1):
        item = item if isinstance(item, dict) else {}
        asked, choices, answer = (item.get(key) for key in ("question", "choices", "answer"))
        texts = isinstance(choices, list) and [records.clean(c) for c in choices if isinstance(c, str)]
        if not isinstance(asked, str) or not asked.strip() or not texts or len(choices) != facts.OPTIONS:
            raise ValueError(f"{where}, item {number}: it needs a question and {facts.OPTIONS} choices")
        if not all(texts) or len(set(texts)) < facts.OPTIONS:
            raise ValueError(f"{where}, item {number}: its choices must be {facts.OPTIONS} different texts")
        if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < facts.OPTIONS:
            raise ValueError(f"{where}, item {number}: answer must be the index of a choice, 0 to {facts.OPTIONS - 1}")
        options = (texts[answer], *(choice for i, choice in enumerate(texts) if i != answer))
        prompt = PROMPT.format(question=asked.strip())
        rows.append((name or Path(source).stem, asked, options[0], "", PROMPT, prompt, options))
    return pd.DataFrame(rows, columns=[*facts.COLUMNS, "template", "prompt", "options"])


def _from_hub(source, name, revision, split) -> list[dict]:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
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
