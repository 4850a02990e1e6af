"""Absolute-contribution relevance against double loops over units, and its laws."""

from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compendium.models import set_threads
from compendium.xai import relevance as rel


@pytest.fixture(autouse=True)
def one_thread():
    set_threads(1)


def mlp(seed=0, sizes=(5, 7, 6, 3), activation=nn.ReLU):
    torch.manual_seed(seed)
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


def small_cnn(seed=0, pool=None):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, stride=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        pool or nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Dropout(0.5)),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def steps(model, x):
    """One image as a list of steps: ("linear", W, b, inputs), ("max", pool, inputs) or ("pass",), all flat.

    The matrix of a linear layer is read off by sending unit images through it: no rule of the package takes part.
    """
    found = []
    for layer in deepcopy(model).double().modules():
        if isinstance(layer, nn.Sequential):
            continue
        layer.eval()
        with torch.no_grad():
            out = layer(x)
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
                zero = layer(torch.zeros_like(x)).flatten()
                units = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
                W = torch.stack([layer(u[None]).flatten() - zero for u in units], 1)
                found.append(["linear", W, zero, x.flatten()])
            elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and found and found[-1][0] == "linear":
                shift = layer(torch.zeros_like(x)).flatten()
                scale = layer(torch.ones_like(x)).flatten() - shift
                _, W, b, below = found[-1]
                found[-1] = ["linear", scale[:, None] * W, scale * b + shift, below]
            elif isinstance(layer, nn.MaxPool2d):
                found.append(["max", layer, x])
            x = out
    return found, x.flatten()


def loop_max(layer, x, R):
    size, stride = layer.kernel_size, layer.stride
    out = torch.zeros_like(x)
    C, h = x.shape[1:3]
    R = R.reshape(1, C, (h - size) // stride + 1, -1)
    for c in range(C):
        for i in range(R.shape[2]):
            for j in range(R.shape[3]):
                top, left = i * stride, j * stride
                window = x[0, c, top : top + size, left : left + size]
                ties = (window == window.max()).double()
                out[0, c, top : top + size, left : left + size] += ties / ties.sum() * R[0, c, i, j]
    return out.flatten()


def loop_default(model, x, target):
    """(input relevance, share of the biases) of one row, unit by unit."""
    found, out = steps(model, torch.as_tensor(x[None]))
    R = torch.zeros_like(out)
    R[target] = 1
    kept = 0.0
    for step in reversed(found):
        if step[0] == "max":
            R = loop_max(step[1], step[2], R)
            continue
        W, b, x = (v.tolist() for v in step[1:])
        R, below = R.tolist(), torch.zeros(len(x), dtype=torch.float64)
        for j in range(len(W)):
            total = sum(abs(W[j][i] * x[i]) for i in range(len(x))) + abs(b[j])
            if total == 0:
                continue
            below += torch.tensor([R[j] * abs(W[j][i] * x[i]) / total for i in range(len(x))], dtype=torch.float64)
            kept += R[j] * abs(b[j]) / total
        R = below
    return R.numpy(), kept


def loop_contrastive(model, x, target):
    """(positive, negative) streams of one row, by the table of cases."""
    found, out = steps(model, torch.as_tensor(x[None]))
    plus, minus = torch.zeros_like(out), out.softmax(0)
    plus[target], minus[target] = 1, 0
    minus = minus / minus.sum()
    for step in reversed(found):
        if step[0] == "max":
            plus, minus = loop_max(step[1], step[2], plus), loop_max(step[1], step[2], minus)
            continue
        W, b, x = (v.tolist() for v in step[1:])
        up, down = [0.0] * len(x), [0.0] * len(x)
        for j in range(len(W)):
            c = [W[j][i] * x[i] for i in range(len(x))]
            P, N = sum(v for v in c if v > 0), -sum(v for v in c if v < 0)
            t, p, m = P - N + b[j], float(plus[j]), float(minus[j])
            for i, v in enumerate(c):
                if v == 0:
                    continue
                if P == 0 or N == 0:
                    up[i] += p * abs(v) / (P + N)
                    down[i] += m * abs(v) / (P + N)
                    continue
                share = v / P if v > 0 else -v / N
                if t > 0:
                    first = (v > 0) if p > m else (v < 0)
                elif t < 0:
                    first = (v > 0) if p < m else (v < 0)
                else:
                    continue
                if first:
                    up[i] += p * share
                else:
                    down[i] += m * share
        plus, minus = (torch.tensor(v, dtype=torch.float64) for v in (up, down))
    return plus.numpy(), minus.numpy()


MODELS = {
    "mlp": (mlp(), (5,)),
    "tanh": (mlp(activation=nn.Tanh), (5,)),
    "batch norm": (
        nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval(),
        (4,),
    ),
    "cnn": (small_cnn(), (2, 6, 6)),
    "overlapping pools": (small_cnn(pool=nn.MaxPool2d(3, stride=1)), (2, 6, 6)),
    "adaptive": (
        nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        ),
        (2, 6, 6),
    ),
}
for model, _ in MODELS.values():
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            torch.manual_seed(5)
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)


@pytest.mark.parametrize("name", MODELS)
def test_both_modes_equal_a_loop_over_units(name):
    model, shape = MODELS[name]
    X, target = data(3, *shape), np.array([0, 2, 1])
    found, both = rel.flow(model, X, target), rel.streams(model, X, target)
    for k in range(3):
        inputs, kept = loop_default(model, X[k], target[k])
        np.testing.assert_allclose(found.inputs[k].ravel(), inputs, atol=1e-9)
        assert found.bias[k] == pytest.approx(kept, abs=1e-9)
        positive, negative = loop_contrastive(model, X[k], target[k])
        np.testing.assert_allclose(both.positive[k].ravel(), positive, atol=1e-9)
        np.testing.assert_allclose(both.negative[k].ravel(), negative, atol=1e-9)
    np.testing.assert_array_equal(rel.relevance(model, X, target), found.inputs)
    np.testing.assert_array_equal(rel.contrastive(model, X, target), both.positive - both.negative)


@pytest.mark.parametrize("name", MODELS)
def test_conservation(name):
    model, shape = MODELS[name]
    X = data(20, *shape, seed=1)
    found = rel.flow(model, X, 1)
    np.testing.assert_allclose(found.inputs.reshape(20, -1).sum(1) + found.bias, 1, atol=1e-6)
    assert (found.inputs >= 0).all()
    # Biases take no share of the streams; with nothing but a bias at the output there is nowhere to send them.
    with torch.no_grad():
        alive = (deepcopy(model).double()[:-1](torch.as_tensor(X)) != 0).any(1).numpy()
    for stream in rel.streams(model, X, 1):
        assert (stream >= 0).all()
        np.testing.assert_allclose(stream.reshape(20, -1).sum(1), alive, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-5, 5))
def test_linear_in_the_start(seed, scale):
    model, X = mlp(seed), data(4, 5, seed=seed)
    one = rel.relevance(model, X, 0)
    np.testing.assert_allclose(rel.relevance(model, X, 0, start=scale), scale * one, atol=1e-9)
    many = np.arange(4.0)
    np.testing.assert_allclose(rel.relevance(model, X, 0, start=many), many[:, None] * one, atol=1e-9)


def test_linear_model_by_hand():
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]])
        model.bias[:] = torch.tensor([-1.0, 0.0])
    x = np.array([[2.0, 1.0, 2.0]])  # contributions 2, -2, 1 and bias -1: 6 in all
    np.testing.assert_allclose(rel.relevance(model, x, 0), [[2 / 6, 2 / 6, 1 / 6]])
    # Target's t = 0: a unit with both signs that is at its tie hands nothing of the positive stream on.
    both = rel.streams(model, x, 0)
    assert both.positive.sum() == 0
    np.testing.assert_allclose(both.negative, [[0, 1 / 3, 2 / 3]])


def test_relevance_has_no_sign_and_ignores_the_signs_of_weights():
    """The documented limit: turn every weight's sign in the last layer, and the explanation stays."""
    model = mlp(3)
    turned = deepcopy(model)
    turned[-1].weight.data *= -1
    X = data(10, 5)
    np.testing.assert_allclose(rel.relevance(model, X, 1), rel.relevance(turned, X, 1))
    assert not np.allclose(rel.contrastive(model, X, 1), rel.contrastive(turned, X, 1))


def test_contrastive_difference_is_not_evidence_for_minus_evidence_against():
    """The other documented limit: two mirrored classes, and the streams follow the same input and cancel."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    for target in (0, 1):
        both = rel.streams(model, [[2.0, 1.0]], target)
        np.testing.assert_allclose(both.positive, [[1, 0]])
        np.testing.assert_allclose(both.negative, [[1, 0]])


def test_gates():
    X = data(30, 5, seed=2) * 3
    np.testing.assert_allclose(  # a silent ReLU has nothing to hand down
        rel.relevance(mlp(), X, 0, gates=True), rel.relevance(mlp(), X, 0)
    )
    bounded = mlp(activation=nn.Tanh)
    for layer in bounded[:-1:2]:
        layer.weight.data *= 4
    open_, gated = rel.flow(bounded, X, 0), rel.flow(bounded, X, 0, gates=True)
    assert (gated.inputs <= open_.inputs + 1e-12).all()
    assert gated.lost.max() > 0.01
    np.testing.assert_allclose(open_.lost, 0, atol=1e-9)
    np.testing.assert_allclose(gated.inputs.sum(1) + gated.bias + gated.lost, 1)
    # One unit far above its range keeps what contributions against it would get.
    unit = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        unit[0].weight[:] = torch.tensor([[3.0, -1.0]])
        unit[2].weight[:] = 1
    np.testing.assert_allclose(rel.relevance(unit, [[1.0, 0.5]], 0, gates=True), [[3 / 3.5, 0]])


def test_the_model_is_left_alone_and_dropout_does_nothing():
    model = small_cnn().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    X = data(2, 2, 6, 6)
    first = rel.relevance(model, X, 0)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    np.testing.assert_array_equal(first, rel.relevance(model, torch.as_tensor(X), 0))


def test_own_elementwise_layers_pass_relevance_on():
    class Standardise(nn.Module):
        elementwise = True

        def forward(self, x):
            return (x - 1) / 2

    model = mlp()
    X = data(3, 5)
    np.testing.assert_allclose(
        rel.relevance(nn.Sequential(Standardise(), model), X, 0), rel.relevance(model, (X - 1) / 2, 0)
    )
    Standardise.elementwise = False
    with pytest.raises(ValueError, match="no rule for Standardise"):
        rel.relevance(nn.Sequential(Standardise(), model), X, 0)


def test_bad_input_is_refused():
    model, X = mlp(), data(3, 5)
    for layer in (nn.LSTM(5, 5), nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.MaxPool2d(2, dilation=2)):
        with pytest.raises(ValueError, match="no rule for"):
            rel.relevance(nn.Sequential(layer), X, 0)
    with pytest.raises(ValueError, match="0 to 2"):
        rel.relevance(model, X, 3)
    with pytest.raises(ValueError, match="0 to 2"):
        rel.contrastive(model, X, [0, 1, -1])
    with pytest.raises(ValueError, match="missing"):
        rel.relevance(model, np.where(X > 0, X, np.nan), 0)
    with pytest.raises(ValueError, match="at least one row"):
        rel.relevance(model, X[:0], 0)
    with pytest.raises(ValueError, match="two outputs"):
        rel.contrastive(nn.Linear(5, 1), X, 0)
    with pytest.raises(ValueError, match="logits"):
        rel.relevance(nn.Conv2d(1, 1, 3), data(1, 1, 5, 5), 0)
