"""Divergences: the notes' test vectors, gradients, and what makes each one a divergence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compendium.policy_opt import divergences

logps = hnp.arrays("float64", 5, elements=st.floats(-15, 0))
VECTORS = [
    (0.6, 0.5, dict(log_l2=0.033241, prob_l2=0.010000, k3=0.015655)),
    (0.02, 0.1, dict(log_l2=2.590290, prob_l2=0.006400, k3=2.390562)),
    (0.1, 0.02, dict(log_l2=2.590290, prob_l2=0.006400, k3=0.809438)),
]


@pytest.mark.parametrize(("p", "q", "expected"), VECTORS)
def test_vectors(p, q, expected):
    logp, logq = torch.tensor([p, q], dtype=torch.float64).log()
    for name, value in expected.items():
        assert divergences.DIVERGENCES[name](logp, logq).item() == pytest.approx(value, abs=5e-7)
    assert divergences.k1(logp, logq).item() == pytest.approx(torch.tensor(p / q).log().item())
    assert divergences.none(logp, logq).item() == 0


@settings(deadline=None, max_examples=50)
@given(logps, logps)
def test_none_is_negative_and_all_vanish_at_the_reference(logp, logq):
    logp, logq = torch.from_numpy(logp.copy()), torch.from_numpy(logq.copy())
    for name, divergence in divergences.DIVERGENCES.items():
        assert divergence(logp, logq).shape == logp.shape
        assert (divergence(logp, logp) == 0).all()
        if name != "k1":
            assert (divergence(logp, logq) >= 0).all()


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("k3", lambda a, b: 1 - (b - a).exp()),
        ("log_l2", lambda a, b: 2 * (a - b)),
        ("prob_l2", lambda a, b: 2 * (a.exp() - b.exp()) * a.exp()),
        ("k1", lambda a, b: torch.ones_like(a)),
    ],
)
def test_gradients(name, slope):
    generator = torch.Generator().manual_seed(0)
    logp, logq = (-4 * torch.rand(2, 20, generator=generator, dtype=torch.float64)).unbind()
    logp.requires_grad_(True)
    (gradient,) = torch.autograd.grad(divergences.DIVERGENCES[name](logp, logq).sum(), logp)
    torch.testing.assert_close(gradient, slope(logp.detach(), logq))
    assert torch.autograd.gradcheck(lambda x: divergences.DIVERGENCES[name](x, logq), logp)


def test_k1_and_k3_estimate_kl():
    generator = torch.Generator().manual_seed(1)
    logp, logq = torch.randn(2, 30, generator=generator, dtype=torch.float64).log_softmax(-1)
    kl = (logp.exp() * (logp - logq)).sum()
    for estimator in (divergences.k1, divergences.k3):
        torch.testing.assert_close((logp.exp() * estimator(logp, logq)).sum(), kl)


def test_over_the_vocabulary():
    generator = torch.Generator().manual_seed(2)
    logp, logq = torch.randn(2, 3, 4, 30, generator=generator, dtype=torch.float64).log_softmax(-1)
    found = divergences.prob_l2_full(logp, logq)
    torch.testing.assert_close(found, (logp.exp() - logq.exp()).norm(dim=-1) ** 2)
    assert found.shape == (3, 4)
    sampled = (logp.exp() * divergences.prob_l2(logp, logq)).sum(-1)  # what the sampled form has as its expectation
    assert (sampled < found).all()
