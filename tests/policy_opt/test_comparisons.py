"""What notebooks ask of grids, on tables small enough to check by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from compendium.policy_opt import comparisons, config, launching, mirror, training_data
from compendium.policy_opt.studies import map


def finals(values):
    rows = []
    for condition, seed, weights, accuracy in values:
        rows.append(
            dict(
                condition=condition,
                seed=seed,
                weights=weights,
                accuracy=accuracy,
                split="validation",
                decoding="greedy",
            )
        )
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed():
    table = finals(
        [("a", 0, "float32", 0.5), ("a", 1, "float32", 0.9), ("b", 1, "float32", 0.7), ("b", 0, "float32", 0.3)]
    )
    found = comparisons.difference(table, "accuracy", "a", "b")
    assert found[:3] == pytest.approx((0.2, 0.2, 0.2))
    assert found[3:] == (2, "seeds")


def test_steps_to_a_threshold():
    looks = pd.DataFrame(
        dict(condition=["a"] * 3 + ["b"] * 3, seed=0, step=[2, 4, 6] * 2, accuracy=[0.4, 0.6, 0.5, 0.1, 0.2, 0.3])
    )
    found = comparisons.steps_to(looks, 0.5)
    assert found.step.tolist() == [4, 8]
    assert found.reached.tolist() == [True, False]


def test_survival_of_a_gain():
    begun = finals([("", 0, "float32", 0.4), ("", 0, "nf4", 0.3)])
    table = finals([("a", 0, "float32", 0.8), ("a", 0, "nf4", 0.6), ("b", 0, "float32", 0.4), ("b", 0, "nf4", 0.3)])
    found = comparisons.survival(table, begun).set_index("condition")
    assert found.loc["a", ["gain", "stored", "kept"]].tolist() == pytest.approx([0.4, 0.3, 0.75])
    assert np.isnan(found.loc["b", "kept"])
    of = comparisons.share(
        pd.DataFrame(dict(seed=[0, 0, 1, 1], gain=[0.4, 0.2, 0.2, 0.2], stored=[0.3, 0.0, 0.2, 0.0]))
    )
    assert (of.value, of.n) == (pytest.approx(0.5), 2)
    assert np.isnan(comparisons.share(pd.DataFrame(dict(seed=[0, 1], gain=[0.4, -0.1], stored=[0.3, -0.1]))).value)


def test_only_training_stories_are_solved_hastily():
    of = config.make(dict(model="owner/model", hasty=1.0))
    lines = lambda split: {p.solution.count("=") for p in training_data.problems(of, split, 30)}
    assert lines("train") == {2}
    assert lines("validation") == {2, 3}


def test_a_map_is_evolved_by_runs_with_it(tmp_path, monkeypatch):
    """Fitness read from the runs' tables; here the runs score how large a map's second last parameter is."""
    seen = []

    def launch(jobs, *, processes):
        for settings, folder in jobs:
            seen.append((settings.seed, settings.divergence, settings.evaluate))
            folder.mkdir()
            score = mirror.load(settings.mirror)[-2].item()
            row = dict(split="validation", weights="float32", decoding="greedy", accuracy=score)
            pd.DataFrame([row]).to_csv(folder / "evaluation.csv", index=False)

    monkeypatch.setattr(launching, "launch", launch)
    base = dict(model=str(tmp_path), coefficient=0.1, divergence="k3")
    begun = mirror.initial(1)
    found = map.evolve(base, begun, iterations=3, population=4, rate=1.0)
    assert found.runs == len(seen) == 3 * 6
    assert found.theta[-2] > begun[-2]
    assert {divergence for _, divergence, _ in seen} == {"mirror"}
    assert len({seed for seed, _, _ in seen[:4]}) == 1  # a population shares its seed


def test_maps_are_written_and_read_back(tmp_path):
    theta = mirror.initial(3)
    mirror.save(theta, tmp_path / "map.txt")
    assert torch.equal(mirror.load(tmp_path / "map.txt"), theta)
    (tmp_path / "map.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match="holds 3 numbers"):
        mirror.load(tmp_path / "map.txt")
