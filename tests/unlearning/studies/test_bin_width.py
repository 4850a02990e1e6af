"""Plain updates as units: what is planned, and that the untouched model comes first."""

import pytest

from compendium.unlearning.studies import bin_width

GIVEN = dict(
    objectives=["npo"],
    learning_rates=[1e-5, 1e-4],
    seeds=[0, 1],
    steps=2,
    look_at=[1],
    batch=2,
    lora_rank=0,
    lora_learning_rate=1e-3,
    relation="country_capital",
    domain="Europe",
    facts_used=8,
    questions_asked=2,
)


def test_the_untouched_model_then_every_rate_and_seed():
    planned = bin_width.planned(**GIVEN)
    assert [(u["objective"], u["learning_rate"], u["seed"]) for u in planned] == [
        ("none", 0.0, 0),
        ("npo", 1e-5, 0),
        ("npo", 1e-5, 1),
        ("npo", 1e-4, 0),
        ("npo", 1e-4, 1),
    ]
    more = bin_width.planned(**GIVEN | {"lora_rank": 4})[len(planned) :]
    assert [(u["objective"], u["learning_rate"], u["lora_rank"]) for u in more] == [("graddiff", 1e-3, 4)] * 2


def test_an_unknown_objective_is_refused_before_any_work():
    with pytest.raises(ValueError, match="unknown objective 'nop': choose among"):
        bin_width.planned(**GIVEN | {"objectives": ["nop"]})
    with pytest.raises(ValueError, match="stepps"):
        bin_width.sweep(GIVEN | {"stepps": 3})
