"""Rewards: rules, and what cannot be had."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compendium.policy_opt import rewards


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42 + 7", 49),
        ("1,200 * 2", 2400),
        ("$5 × 3", 15),
        ("-(3 − 5)", 2),
        ("6 / 4", 1.5),
        ("3 \\times 4", 12),
        ("1 / 0", None),
        ("2 ** 9", None),
        ("9^9", None),
        ("__import__('os')", None),
        ("x", None),
        ("", None),
        ("True", None),
        ("(" * 500, None),
    ],
)
def test_expressions(text, expected):
    assert rewards.value(text) == expected


@given(st.text(alphabet="0123456789+-*/() .,x=$^e", max_size=30))
def test_any_expression_has_a_value_or_none(text):
    found = rewards.value(text)
    assert found is None or isinstance(found, float)


def test_rules_by_hand():
    texts = ["4 + 5 = 9. 9 - 2 = 7. #### 7", "4 + 5 = 8. 8 - 2 = 6. #### 6", "who knows?", "4 + 4 = 9. #### 7", ""]
    assert rewards.correct(texts, [7.0] * 5) == [1, 0, 0, 1, 0]
    assert rewards.calculations(texts) == [1, 0.5, 0, 0, 0]
    assert rewards.marker(texts) == [1, 1, 0, 1, 0]
    messages = [[{"role": "assistant", "content": text}] for text in texts]
    assert rewards.correct(messages, [7.0] * 5) == [1, 0, 0, 1, 0]


def test_programs_are_run_in_the_sandbox():
    tests, setup = [["assert double(2) == 4", "assert double(3) == 6"]] * 2, ["", ""]
    assert rewards.programs(["def double(x): return 2 * x", "def double(x): return 4"], tests, setup) == [1, 0.5]


def test_names():
    assert rewards.get("correct") is rewards.correct
    assert rewards.get("math:sqrt")(4) == 2
    for name, message in {
        "corect": "did you mean 'correct'?",
        "nothing.like:this": "cannot be had",
        "math:cube": "cannot be had",
        "lib": "reward model 'lib' cannot be loaded",
    }.items():
        with pytest.raises(ValueError, match=message.replace("?", r"\?")):
            rewards.get(name)
    with pytest.raises(ValueError, match="no rewards"):
        rewards.build({})
    assert rewards.build({"marker": 2, "correct": 0.5})[1] == [2.0, 0.5]
