"""Prompts for category-targeted refusal: what a policy should refuse, and what it must not.

A policy refuses one category of regulated advice (say, doses of medicines) and nothing else. `data/refusal_prompts.csv`
holds seven benign categories, each as topics x phrasings to refuse and *near misses*, prompts on the same subject that
should still be answered; and neutral prompts. Topics, phrasings, near misses and neutral prompts are split into train
and held-out, so that a refusal cannot score by recognising a word or a wording it was trained on.
"""

import jinja2
import pandas as pd

from compendium import records
from compendium.paths import DATA
from compendium.prose import check_split


def load(path=DATA / "refusal_prompts.csv") -> pd.DataFrame:
    """The table: category, role (topic, phrasing, near_miss, prompt, refusal), split, text, cells trimmed. Raises
    ValueError as `records.table` does."""
    return records.table(path, ["category", "role", "split", "text"]).reset_index(drop=True)


def categories() -> list[str]:
    """Names of the categories that a policy can refuse."""
    table = load()
    return table.category[table.role == "topic"].unique().tolist()


def _texts(category: str, role: str, split: str) -> list[str]:
    check_split(split)
    table = load()
    found = table.text[(table.category == category) & (table.role == role) & (table.split == split)].tolist()
    if not found:
        if category in set(table.category):
            raise ValueError(f"category {category!r} has no {role} texts for split {split!r}")
        raise ValueError(f"unknown category {category!r}: choose one of {', '.join(categories())}")
    return found


def wordings(category: str, split: str) -> list[list[str]]:
    """One list of prompts for every phrasing of the split: the phrasing, filled with every topic of the split."""
    topics = _texts(category, "topic", split)
    return [[phrasing.format(topic=topic) for topic in topics] for phrasing in _texts(category, "phrasing", split)]


def to_refuse(category: str, split: str) -> list[str]:
    """Every topic of the split in every phrasing of the split."""
    return [prompt for prompts in wordings(category, split) for prompt in prompts]


def near_misses(category: str, split: str) -> list[str]:
    """Prompts on the category's subject that should be answered."""
    return _texts(category, "near_miss", split)


def neutral(split: str) -> list[str]:
    """Everyday prompts that have to do with no category."""
    return _texts("neutral", "prompt", split)


def refusals() -> list[str]:
    """Refusal sentences to train on; each begins with "I"."""
    return _texts("policy", "refusal", "train")


def chat(tokenizer, prompt: str) -> str:
    """The prompt as a user's turn, ready for the assistant's, without the template's default system message. Raises
    ValueError for a tokenizer without a template, and for a template that takes no system message."""
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template: choose a model that was trained to chat")
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": prompt}]
    try:
        return tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except jinja2.TemplateError as error:
        raise ValueError(f"the tokenizer's chat template does not take these turns: {error}") from None
