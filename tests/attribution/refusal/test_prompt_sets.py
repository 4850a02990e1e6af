"""The refusal prompts: complete, without leaks between splits."""

import pandas as pd
import pytest

from compendium.attribution.refusal import prompt_sets
from compendium.paths import DATA
from compendium.prose import SPLITS


def test_every_category_is_complete():
    names = prompt_sets.categories()
    assert len(names) >= 5
    for name in names:
        assert len(prompt_sets.to_refuse(name, "train")) >= 40
        assert len(prompt_sets.to_refuse(name, "heldout")) >= 15
        assert all("{" not in prompt for split in SPLITS for prompt in prompt_sets.to_refuse(name, split))
        assert all(len(prompt_sets.near_misses(name, split)) >= 7 for split in SPLITS)
    assert all(len(prompt_sets.neutral(split)) >= 30 for split in SPLITS)
    assert all(text.startswith("I ") for text in prompt_sets.refusals())


def test_splits_share_no_text_and_topics_no_word():
    table = prompt_sets.load()
    assert not table.text.str.lower().duplicated().any()
    for name in prompt_sets.categories():
        topics = [table[(table.category == name) & (table.role == "topic") & (table.split == s)] for s in SPLITS]
        train, heldout = (set(" ".join(part.text).lower().split()) for part in topics)
        assert not train & heldout - {"of", "the", "a", "my", "and", "for", "from", "on", "in", "with", "to"}, name


def test_a_prompt_becomes_a_user_turn(embedded):
    text = prompt_sets.chat(embedded[1], "What is bread?")
    assert "What is bread?" in text
    assert text.rstrip().endswith("assistant")
    assert "SmolLM" not in text


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match="unknown category 'law': choose one of medicine"):
        prompt_sets.to_refuse("law", "train")
    with pytest.raises(ValueError, match="unknown split"):
        prompt_sets.neutral("test")


def test_the_prose_is_there():
    prose = pd.read_csv(DATA / "prose.csv")
    assert len(prose) >= 40
    assert prose.text.str.split().str.len().between(40, 80).all()
