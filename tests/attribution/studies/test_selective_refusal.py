"""Selective refusal as units: what is planned, and what is refused before work starts."""

import pytest

from compendium.attribution.studies import selective_refusal

GIVEN = dict(
    categories=["tax", "building"], methods=["constrained, circuit", "LoRA"], n_pairs=2, ig_steps=1, per_kind=2,
    strengths=[1.0], others=2, n_facts=2, n_prose=1, training={"steps": 2},
)  # fmt: skip


def test_units_are_methods_on_categories_two_together_and_the_model_as_it_is():
    planned = selective_refusal.planned(**GIVEN)
    assert [(u["job"], u.get("category"), u.get("name"), u.get("seed")) for u in planned] == [
        ("several", None, None, None),
        ("method", "tax", "constrained, circuit", 0),
        ("method", "tax", "LoRA", 0),
        ("method", "building", "constrained, circuit", 1),
        ("method", "building", "LoRA", 1),
        ("baseline", None, None, None),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": ["taxes"]}, "unknown category 'taxes': choose among"),
        ({"methods": ["LoRA"]}, "'constrained, circuit' among the methods"),
        ({"training": {"step": 2}}, "training: unknown setting 'step': did you mean 'steps'"),
        ({"training": {"steps": "many"}}, "training: steps is 'many': it must be int"),
        ({"pairs": 2}, "did you mean 'n_pairs'"),
    ],
)
def test_bad_settings_are_refused_before_work(changes, message):
    with pytest.raises(ValueError, match=message):
        selective_refusal.sweep(GIVEN | changes)
