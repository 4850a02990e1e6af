"""Backends as units: what is planned, and a reward that is not learned yet."""

import pytest

from compendium.policy_opt import config
from compendium.policy_opt.studies import backends

GIVEN = dict(
    base={
        "model": "data/policies/start/policy",
        "method": "dr_grpo",
        "steps": 1,
        "batch": 8,
        "group": 4,
        "problems": 16,
        "evaluated": 8,
    },
    judging={"problems": 8, "batch": 4, "steps": 1},
    ends={"method": "grpo", "formats": ["nf4"]},
    seeds=[0, 1],
    conditions={"verifier": {}, "learned": {"rewards": {"learned": 1.0}, "divergence": "k3", "coefficient": 0.1}},
)


def test_units_are_comparisons_a_judge_and_runs():
    planned = backends.planned(**GIVEN)
    assert [(u["job"], u.get("method", u.get("condition")), u.get("seed")) for u in planned] == [
        *(("parity", method, None) for method in backends.METHODS),
        ("interference", None, None),
        ("judge", None, None),
        ("trained", "verifier", 0),
        ("trained", "verifier", 1),
        ("trained", "learned", 0),
        ("trained", "learned", 1),
        ("trained", None, 0),
    ]
    by_condition = {u.get("condition"): u for u in planned if u["job"] == "trained"}
    assert by_condition["learned"]["given"]["rewards"] == {"learned": 1.0}
    assert by_condition["verifier"]["given"].get("rewards") is None
    assert by_condition["learned"]["judging"]["method"] == "reward"


@pytest.mark.parametrize(
    "changes",
    [
        {"judging": {"problem": 8}},
        {"conditions": {"learned": {"rewards": {"learned": 1.0}, "divergenc": "k3"}}},
        {"base": GIVEN["base"] | {"group": 1}},
        {"conditions": {}},
    ],
)
def test_what_cannot_be_run_is_refused_before_work(changes):
    with pytest.raises(config.ConfigError):
        backends.planned(**GIVEN | changes)
