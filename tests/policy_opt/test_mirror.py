"""Mirror maps against closed forms, quadrature and high precision; evolution strategies on a known landscape."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate

from compendium.policy_opt import divergences, losses, mirror

probabilities = st.floats(1e-6, 1.0)


@st.composite
def thetas(draw):
    """Admissible parameters of any size, some of them at zero, as projection leaves them."""
    theta = mirror.initial(draw(st.integers(0, 2**31)), 1.0).double()
    zeros = draw(st.sampled_from([0.0, 0.5, 0.9, 0.999]))
    return mirror.project((theta - zeros) / (1 - zeros) * draw(st.sampled_from([0.01, 1.0, mirror.LARGEST])))


def pair(p, q, dtype=torch.float64):
    return torch.tensor(p, dtype=dtype).log(), torch.tensor(q, dtype=dtype).log()


@pytest.mark.parametrize(
    ("p", "q", "expected"), [(0.6, 0.5, 0.000415089), (0.02, 0.1, 0.000550436), (0.1, 0.02, 0.000722200)]
)
def test_vectors(p, q, expected):
    theta = torch.full((mirror.SIZE,), 0.005, dtype=torch.float64)
    assert mirror.divergence(theta, *pair(p, q)).item() == pytest.approx(expected, abs=5e-10)
    assert mirror.divergence(theta.float(), *pair(p, q, torch.float32)).item() == pytest.approx(expected, rel=1e-5)


def test_a_alone_is_squared_distance_and_c_alone_generalised_kl():
    theta = torch.zeros(mirror.SIZE, dtype=torch.float64)
    p, q = 0.3, 0.04
    theta[-2] = 2.0
    assert mirror.divergence(theta, *pair(p, q)).item() == pytest.approx((p - q) ** 2)
    theta[-2:] = torch.tensor([0.0, 3.0])
    assert mirror.divergence(theta, *pair(p, q)).item() == pytest.approx(3 * (p * math.log(p / q) - (p - q)))


@settings(deadline=None, max_examples=40)
@given(thetas(), probabilities, probabilities)
def test_divergence_is_the_area_above_the_slope(theta, p, q):
    slope = lambda y: mirror.inverse_potential(theta, torch.tensor(y, dtype=torch.float64)).item()
    # Over log-probability, where the integrand is smooth.
    area, error = integrate.quad(
        lambda z: (slope(math.exp(z)) - slope(q)) * math.exp(z), math.log(q), math.log(p), epsabs=1e-12, epsrel=1e-10
    )
    found = mirror.divergence(theta, *pair(p, q)).item()
    assert found == pytest.approx(area, rel=1e-6, abs=1e-10 + 10 * error)


@settings(deadline=None, max_examples=60)
@given(
    thetas(), hnp.arrays("float64", 24, elements=st.floats(1e-9, 1.0)), st.sampled_from([torch.float32, torch.float64])
)
def test_every_admissible_map_is_convex_and_no_divergence_negative(theta, y, dtype):
    y = torch.from_numpy(y.copy()).sort().values
    slopes = mirror.inverse_potential(theta, y)
    assert (slopes.diff() >= -1e-12 * slopes.abs().max()).all()
    potential = mirror.potential(theta, y)
    middle = mirror.potential(theta, (y[1:] + y[:-1]) / 2)
    assert (middle <= (potential[1:] + potential[:-1]) / 2 + 1e-9 * (1 + potential.abs().max())).all()
    logp = y.to(dtype).log()
    table = mirror.divergence(theta, logp[:, None], logp[None])
    assert (table >= 0).all()
    assert table.isfinite().all()
    assert (table.diagonal() == 0).all()


@settings(deadline=None, max_examples=30)
@given(thetas(), probabilities, probabilities)
def test_potential_and_divergence_agree(theta, p, q):
    y = torch.tensor([p, q], dtype=torch.float64)
    h, slope = mirror.potential(theta, y), mirror.inverse_potential(theta, y)
    textbook = (h[0] - h[1] - slope[1] * (p - q)).item()
    scale = h.abs().max().item() + slope.abs().max().item() + 1
    assert mirror.divergence(theta, *pair(p, q)).item() == pytest.approx(textbook, rel=1e-6, abs=1e-9 * scale)


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5, 3e-6])
@pytest.mark.parametrize("q", [1e-4, 0.5, 0.9])
def test_single_precision_keeps_its_digits_near_the_reference(q, gap):
    """Where the textbook formula has none left: most tokens' probabilities hardly differ from the reference's."""
    theta = mirror.initial()
    logq = torch.tensor(math.log(q))
    logp = logq + torch.tensor(gap)
    exact = mirror.divergence(theta.double(), logp.double(), logq.double())
    assert mirror.divergence(theta, logp, logq).item() == pytest.approx(exact.item(), rel=1e-4)
    assert exact > 0


def test_gradient_is_the_difference_of_slopes():
    generator = torch.Generator().manual_seed(0)
    theta = mirror.initial(3, 0.5).double()
    logp, logq = (-6 * torch.rand(2, 12, generator=generator, dtype=torch.float64)).unbind()
    logp[:3] = logq[:3] + torch.tensor([0.0, 1e-9, -1e-4])
    logp.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: mirror.divergence(theta, x, logq), logp)
    (gradient,) = torch.autograd.grad(mirror.divergence(theta, logp, logq).sum(), logp)
    p, q = logp.detach().exp(), logq.exp()
    expected = (mirror.inverse_potential(theta, p) - mirror.inverse_potential(theta, q)) * p
    torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-9)


def test_gradients_are_finite_at_the_corners():
    theta = mirror.project(mirror.initial() - 0.005)  # half of it exactly zero
    logp = torch.tensor([0.0, -100.0, -1e-8, -23.0, -5.0, -100.0], requires_grad=True)
    logq = torch.tensor([-100.0, 0.0, 0.0, -23.0, -5.0, -100.0])
    loss = mirror.divergence(theta, logp, logq)
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), logp)[0].isfinite().all()


def test_a_mirror_map_fits_the_losses_and_whole_vocabularies():
    generator = torch.Generator().manual_seed(4)
    logp, logq = torch.randn(2, 3, 5, 11, generator=generator).log_softmax(-1)
    divergence = partial(mirror.divergence, mirror.initial())
    whole = divergences.over_vocabulary(divergence, logp, logq)
    assert whole.shape == (3, 5)
    assert (whole > 0).all()
    batch = logp[..., 0], logp[..., 0], logq[..., 0], torch.zeros(3), torch.ones(3, 5)
    found = losses.grpo(*batch, divergence=divergence, coefficient=2.0)
    torch.testing.assert_close(found, 2 * divergence(logp[..., 0], logq[..., 0]).mean())


def test_initial_maps_are_admissible_and_seeded():
    theta = mirror.initial(7)
    assert theta.shape == (380,)
    assert torch.equal(theta, mirror.initial(7))
    assert not torch.equal(theta, mirror.initial(8))
    assert 0 <= theta.min() < theta.max() <= 0.01


def test_inadmissible_parameters_are_refused():
    logp = torch.zeros(1)
    for bad in (-1e-9, 11.0, torch.nan):
        theta = mirror.initial()
        theta[17] = bad
        with pytest.raises(ValueError, match=r"must lie in \[0, 10\]"):
            mirror.divergence(theta, logp, logp)
    with pytest.raises(ValueError, match="has 380 parameters, not"):
        mirror.divergence(torch.zeros(379), logp, logp)


# Evolution -------------------------------------------------------------------------------------------------------

GOAL = 0.05 * torch.rand(mirror.SIZE, generator=torch.Generator().manual_seed(9))


def hill(theta, seed, noise=0.0):
    """Highest at GOAL; the seed's noise is the same for all that share it."""
    luck = torch.randn(1, generator=torch.Generator().manual_seed(seed)).item()
    return -100 * ((theta - GOAL) ** 2).sum().item() + noise * luck


def test_evolution_climbs_and_stays_admissible():
    seen = []

    def fitness(theta, seed):
        seen.append((theta.clone(), seed))
        return hill(theta, seed, noise=10.0)

    start = mirror.initial()
    found = mirror.evolve(fitness, start, iterations=40, population=20, rate=2e-3)
    assert found.runs == len(seen) == 40 * 22
    assert all(((theta >= 0) & (theta <= mirror.LARGEST)).all() for theta, _ in seen)
    assert hill(found.theta, 0) > hill(start, 0)
    accepted = [record for record in found.history if record["accepted"]]
    assert accepted
    assert all(record["after"] > record["before"] for record in accepted)
    assert all(record["after"] <= record["before"] for record in found.history if not record["accepted"])
    # One seed for the members, another for the trial; both differ from those of other iterations.
    for k in range(40):
        seeds = [seed for _, seed in seen[22 * k : 22 * k + 22]]
        assert seeds == [42 + 2 * k] * 20 + [43 + 2 * k] * 2
    again = mirror.evolve(partial(hill, noise=10.0), start, iterations=40, population=20, rate=2e-3)
    assert torch.equal(found.theta, again.theta)


def test_a_constant_added_to_all_fitness_changes_nothing():
    runs = [
        mirror.evolve(lambda theta, seed, shift=shift: hill(theta, seed) + shift, mirror.initial(), iterations=5).theta
        for shift in (0.0, 64.0)
    ]
    torch.testing.assert_close(*runs, rtol=1e-3, atol=1e-5)


def test_the_step_is_the_gradient_where_nothing_is_clipped():
    start = torch.full((mirror.SIZE,), 1.0, dtype=torch.float64)
    slope = torch.linspace(-1, 1, mirror.SIZE, dtype=torch.float64)
    found = mirror.evolve(lambda theta, seed: (slope @ theta).item(), start, iterations=1, population=20_000, rate=0.01)
    step = (found.theta - start) / 0.01
    assert (step @ slope / (slope @ slope)).item() == pytest.approx(1.0, rel=0.05)
    assert (step - slope).std() < 0.2


def test_failed_runs_take_their_pair_along():
    def fitness(theta, seed):
        return torch.nan if theta[0] > 0.5 else hill(theta, seed)

    start = mirror.initial()
    start[0] = 0.5  # half of the population fails, one of each pair
    found = mirror.evolve(fitness, start, iterations=1, population=6)
    assert found.history[0]["failed"] == 3
    assert not found.history[0]["accepted"]
    assert torch.equal(found.theta, start)
    with pytest.raises(ValueError, match="even population, not 5"):
        mirror.evolve(hill, start, population=5)
