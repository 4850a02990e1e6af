"""Multiple-choice sets in the WMDP format, as questions that `facts.score` asks: for users with models that know them.

    questions = wmdp.load("wmdp_bio.jsonl")                              # a local file, one item a line
    questions = wmdp.load("cais/wmdp", "wmdp-bio", revision="...")       # a hub data set, at a commit
    facts.score(model, tokenizer, questions).correct.mean()

An item has `question`, four `choices` and the index `answer`. The compendium ships none of them and runs on facts about
the world instead; what the model picks is the choice with the highest log-probability per token, as everywhere here.
"""

from pathlib import Path

import pandas as pd

from compendium import facts, hub, records

PROMPT = "Question: {question}\nAnswer:"


def load(source: str, name: str | None = None, *, revision: str | None = None, split: str = "test") -> pd.DataFrame:
    """Questions with columns as `facts.questions` has them, the right option first.

    source: a JSON-lines file, or a hub data set (with `name`, its configuration, and `revision`, a 40-digit commit).
    Raises ValueError for items that are not in the format, naming the first one, and when a data set cannot be had.
    """
    rows = []
    for where, item in hub.items(source, name, revision, split):
        asked, choices, answer = (item.get(key) for key in ("question", "choices", "answer"))
        texts = isinstance(choices, list) and [records.clean(c) for c in choices if isinstance(c, str)]
        if not isinstance(asked, str) or not asked.strip() or not texts or len(choices) != facts.OPTIONS:
            raise ValueError(f"{where}: it needs a question and {facts.OPTIONS} choices")
        if not all(texts) or len(set(texts)) < facts.OPTIONS:
            raise ValueError(f"{where}: its choices must be {facts.OPTIONS} different texts")
        if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < facts.OPTIONS:
            raise ValueError(f"{where}: answer must be the index of a choice, 0 to {facts.OPTIONS - 1}")
        options = (texts[answer], *(choice for i, choice in enumerate(texts) if i != answer))
        prompt = PROMPT.format(question=asked.strip())
        rows.append((name or Path(source).stem, asked, options[0], "", PROMPT, prompt, options))
    return pd.DataFrame(rows, columns=[*facts.COLUMNS, "template", "prompt", "options"])
