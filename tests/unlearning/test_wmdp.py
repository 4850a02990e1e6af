"""The adapter for multiple-choice files: right option first, and clear about what it cannot read."""

import json

import pytest

from compendium import facts
from compendium.unlearning import wmdp

ITEM = {"question": "What is the capital of France?", "choices": ["Rome", "Paris", "Oslo", "Lima"], "answer": 1}


def written(path, *items):
    path.write_text("\n".join(json.dumps(item) for item in items) + "\n")
    return str(path)


def test_the_right_choice_comes_first_and_can_be_scored(embedded, tmp_path):
    asked = wmdp.load(written(tmp_path / "capitals.jsonl", ITEM))
    assert asked.options[0] == ("Paris", "Rome", "Oslo", "Lima")
    assert asked.relation[0] == "capitals"
    found = facts.score(*embedded, asked)
    assert found.choice[0] == "Paris"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["a", "b"]}, "item 2: it needs a question and 4 choices"),
        ({"question": ""}, "item 2: it needs a question"),
        ({"answer": 4}, "item 2: answer must be the index of a choice, 0 to 3"),
        ({"answer": "B"}, "item 2: answer must be the index"),
    ],
)
def test_items_out_of_format_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        wmdp.load(written(tmp_path / "set.jsonl", ITEM, ITEM | change))


def test_sources_that_cannot_be_had_are_explained(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no items"):
        wmdp.load(str(tmp_path / "empty.jsonl"))
    with pytest.raises(ValueError, match="neither a file nor a hub id"):
        wmdp.load("nowhere.jsonl")
    with pytest.raises(ValueError, match="give revision="):
        wmdp.load("owner/data")
