"""Pretraining: learns, goes on after an interruption to the bit, and refuses another recipe."""

import numpy as np
import pandas as pd
import pytest
import torch

from compendium import models
from compendium.tabular import pretrain, prior
from compendium.tabular.__main__ import main

TINY = dict(
    seed=0,
    tokens=256,
    longest=128,
    rate=2e-3,
    warm_up=5,
    shape=dict(width=32, layers=2, heads=2, hidden=32),
    every=4,
    progress=lambda text: None,
)


def test_an_interrupted_run_goes_on_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(
        pretrain,
        "held_out",
        lambda seed: [(*pretrain.batch(np.random.default_rng(9), tables=4, rows=64, context=32), 32)],
    )
    whole = pretrain.train(tmp_path / "a", steps=8, **TINY)
    pretrain.train(tmp_path / "b", steps=4, **TINY)
    resumed = pretrain.train(tmp_path / "b", steps=8, **TINY)
    assert models.sha256(whole) == models.sha256(resumed)
    curves = [pd.read_csv(tmp_path / folder / "curve.csv") for folder in "ab"]
    pd.testing.assert_frame_equal(*curves)
    assert curves[0].step.tolist() == [4, 8]
    with pytest.raises(ValueError, match="other settings"):
        pretrain.train(tmp_path / "b", steps=9, **TINY | {"rate": 1e-3})


def test_it_learns_linear_tables():
    """Two hundred small steps on one family beat the class shares on tables not seen."""
    models.set_threads(1)
    run = pretrain.Run(shape=pretrain.Shape(width=32, layers=2, heads=2, hidden=64), rate=3e-3, seed=0)
    draw = lambda k: pretrain.batch(
        np.random.default_rng(k), tables=16, rows=64, context=48, families={"clusters": 1.0}, classes=2
    )
    for k in range(150):
        x, y = draw(k)
        value = pretrain.loss(run.network, x, y, 48)
        for optimiser in run.optimisers:
            optimiser.zero_grad()
        value.backward()
        for optimiser in run.optimisers:
            optimiser.step()
    found = pretrain.validate(run.network, [(*draw(10_000), 48), (*draw(10_001), 48)])
    assert found["loss"] < found["loss of class shares"] - 0.02


def test_all_weights_are_trained_once():
    run = pretrain.Run(shape=pretrain.Shape(width=32, layers=2, heads=2, hidden=32), rate=1e-3, seed=0)
    held = [id(p) for optimiser in run.optimisers for group in optimiser.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in run.network.parameters())


def test_episodes_number_the_contexts_classes():
    rng = np.random.default_rng(0)
    y = np.array([2, 2, 5, 5, 2, 7, 5])
    table = prior.Table(rng.normal(size=(7, 3)).astype(np.float32), np.zeros(3, bool), y)
    for seed in range(10):
        x, classes = pretrain.episode(table, 4, np.random.default_rng(seed))
        assert x.shape == (7, 64)
        assert sorted(set(classes[:4])) == [0, 1]
        assert classes[5] == pretrain.IGNORED  # 7 is not in the context
        assert classes[4] == classes[0]
        assert classes[6] == classes[2]
    _, classes = pretrain.episode(table, 2, rng)  # one class only: nothing to learn
    assert (classes[2:] == pretrain.IGNORED).all()


def test_validation_of_class_shares_by_hand():
    class Shares(torch.nn.Module):
        def forward(self, x, y):
            share = torch.nn.functional.one_hot(y, 10).float().mean(1, keepdim=True)
            return share.log().expand(-1, x.shape[1] - y.shape[1], -1)

    x, y = torch.zeros(1, 6, 64), torch.tensor([[0, 0, 0, 1, 0, 1]])
    found = pretrain.validate(Shares(), [(x, y, 4)])
    expected = -(np.log(0.75) + np.log(0.25)) / 2
    assert found["loss"] == pytest.approx(expected, abs=1e-5)
    assert found["loss of class shares"] == pytest.approx(expected, abs=1e-5)
    assert found["accuracy"] == 0.5


def test_steps_draw_different_tables_and_validation_its_own():
    a, b = (pretrain.batch(np.random.default_rng([0, step]), tables=2, rows=40, context=20)[0] for step in (0, 1))
    assert not torch.equal(a, b)
    for x, y, context in pretrain.held_out(seed=0, tables=6):
        assert x.shape[:2] == y.shape
        assert 0 < context < x.shape[1]


def test_command_line_errors_are_one_line(tmp_path):
    settings = tmp_path / "s.yaml"
    with pytest.raises(SystemExit, match="error: no parameters file"):
        main(["pretrain", str(settings)])
    settings.write_text("stepz: 3\n")
    with pytest.raises(SystemExit, match=r"error: .*stepz"):
        main(["pretrain", str(settings), "--out", str(tmp_path)])
