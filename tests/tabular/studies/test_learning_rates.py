"""The search for learning rates, and that its outcome is what the strategies use."""

import numpy as np
import pandas as pd
import pytest

from compendium.tabular import finetune, suite
from compendium.tabular.studies import learning_rates


def table(gain):
    """A made search on two splits: zero-shot has log-loss 1, and `gain(strategy, rate)` is taken off."""
    rows = [("zero-shot", 0.0, 0.0)] + [(s, r, gain(s, r)) for s in ("sft", "lora") for r in (1e-4, 1e-3)]
    return pd.DataFrame(
        [
            {"set": "a", "seed": seed, "strategy": s, "rate": r, "log-loss": 1 + seed - g}
            for s, r, g in rows
            for seed in (0, 1)
        ]
    )


def test_gain_is_against_the_same_split():
    found = learning_rates.gains(table(lambda strategy, rate: rate if strategy == "sft" else -rate))
    np.testing.assert_allclose(found.loc["sft"], [1e-4, 1e-3])
    np.testing.assert_allclose(found.loc["lora"], [-1e-4, -1e-3])


def test_best_is_the_largest_gain():
    assert learning_rates.best(table(lambda strategy, rate: rate if strategy == "sft" else -rate)) == {
        "sft": 1e-3,
        "lora": 1e-4,
    }


def test_strategies_use_the_rates_that_were_found():
    found = learning_rates.best(pd.read_csv(learning_rates.OUT / "losses.csv"))
    assert found == {name: finetune.STRATEGIES[name].rate for name in ("meta", "sft", "lora", "meta lora")}


def test_best_rates_are_inside_the_range_searched():
    found = learning_rates.gains(pd.read_csv(learning_rates.OUT / "losses.csv"))
    for strategy, row in found.iterrows():
        tried = row.dropna()
        assert tried.index.min() < tried.idxmax() < tried.index.max(), strategy


def test_only_development_sets_are_searched():
    with pytest.raises(ValueError, match="not development sets: iris"):
        learning_rates.planned(sets=["iris"], seeds=[0], rates={}, rows=10, asked=10, members=1)
    assert set(pd.read_csv(learning_rates.OUT / "losses.csv")["set"]) <= set(suite.DEVELOPMENT)
