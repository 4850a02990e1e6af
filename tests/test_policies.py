"""The refusal prompts: complete, without leaks between splits."""

import pandas as pd
import pytest

from compendium.attribution import policies
from compendium.paths import DATA


def test_every_category_is_complete():
    names = policies.categories()
    assert len(names) >= 5
    for name in names:
        assert len(policies.to_refuse(name, "train")) >= 40
        assert len(policies.to_refuse(name, "heldout")) >= 15
        assert all("{" not in prompt for split in policies.SPLITS for prompt in policies.to_refuse(name, split))
        assert all(len(policies.near_misses(name, split)) >= 7 for split in policies.SPLITS)
    assert all(len(policies.neutral(split)) >= 30 for split in policies.SPLITS)
    assert all(text.startswith("I ") for text in policies.refusals())


def test_splits_share_no_text_and_topics_no_word():
    table = policies.load()
    assert not table.text.str.lower().duplicated().any()
    for name in policies.categories():
        topics = [
            table[(table.category == name) & (table.role == "topic") & (table.split == s)] for s in policies.SPLITS
        ]
        train, heldout = (set(" ".join(part.text).lower().split()) for part in topics)
        assert not train & heldout - {"of", "the", "a", "my", "and", "for", "from", "on", "in", "with", "to"}, name


def test_a_prompt_becomes_a_user_turn(embedded):
    text = policies.chat(embedded[1], "What is bread?")
    assert "What is bread?" in text
    assert text.rstrip().endswith("assistant")
    assert "SmolLM" not in text


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match="unknown category 'law': choose one of medicine"):
        policies.to_refuse("law", "train")
    with pytest.raises(ValueError, match="unknown split"):
        policies.neutral("test")


def test_the_prose_is_there():
    prose = pd.read_csv(DATA / "prose.csv")
    assert len(prose) >= 40
    assert prose.text.str.split().str.len().between(40, 80).all()
