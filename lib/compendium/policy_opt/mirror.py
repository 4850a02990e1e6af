"""Neural mirror maps: a divergence with 380 parameters, and evolution strategies to learn them.

A separable Bregman divergence is set by one increasing function of a probability, h', the derivative of its potential:
D(p || q) = h(p) - h(q) - h'(q) (p - q). Group-Based Mirror Policy Optimisation (arXiv 2602.04380) writes h' as a small
network of one input,

    h'(y) = sum over 126 units of v f(w y + b)  +  a y  +  c ln y,

21 units for each of six increasing f: u^3, u^2, u^(1/2), u^(1/3), ln(u + 0.001), exp(u). With no parameter below zero
every term rises with y, so h is convex and D >= 0. a alone gives squared distance, c alone the generalised KL.
Formulas and defaults were read in an older version of the authors' code; the paper's text was not available to us.

    theta = mirror.initial()                              # (380,) uniform on [0, 0.01]: a "random" mirror map
    divergence = partial(mirror.divergence, theta)        # (logp, logq) -> per token, as in `divergences`

The textbook formula for D loses every digit where p is near q, which is where most tokens are. Each family's
divergence has (p - q)^2 as a factor, so we divide it out by hand. With u, u0 for w p + b, w q + b:

    v w (p - q)^2 K,  K =  (u^2 + 2 u u0 + 3 u0^2) / 4                                     cube
                           (u + 2 u0) / 3                                                  square
                           (2 s + s0) / (3 (s + s0)^2),                     s = u^(1/2)    square root
                           (3 s^2 + 2 s s0 + s0^2) / (4 (s^2 + s s0 + s0^2)^2),  s = u^(1/3)   cube root
                           psi((x - x0) / x0) / x0,                         x = u + 0.001  logarithm
                           exp(u0) chi(u - u0)                                             exponential

    psi(r) = ((1 + r) ln(1 + r) - r) / r^2,   chi(d) = (exp(d) - 1 - d) / d^2,   both 1/2 at 0.

Every factor is positive, so the computed D is never negative either; and p - q comes from the log-probabilities'
difference. `evolve` is the authors' meta-learning with three repairs, told apart in its docstring.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compendium import report
from compendium.paths import relative

UNITS, FAMILIES = 126, 6
SIZE = 3 * UNITS + 2  # v, w, b of each unit, then a, c
SHIFT = 1e-3  # inside the logarithm
FLOOR = math.log(1e-10)  # probabilities below 1e-10 count as 1e-10
LARGEST = 10.0  # of a parameter: exp(w y + b) then stays within single precision; training stays far below


def initial(seed: int = 42, scale: float = 0.01) -> Tensor:
    """(380,) parameters drawn uniformly from [0, scale]."""
    return scale * torch.rand(SIZE, generator=torch.Generator().manual_seed(seed))


def project(theta: Tensor) -> Tensor:
    """The nearest admissible parameters: none below 0, where h would stop being convex, or above LARGEST."""
    return theta.clamp(0.0, LARGEST)


def save(theta: Tensor, path) -> None:
    """Write the parameters, one a line, to a text file that `load` reads back to the same float32 numbers."""
    report.write(path, "".join(f"{value:.9g}\n" for value in theta.tolist()))


def load(path) -> Tensor:
    """(380,) parameters from a file that `save` wrote. Raises ValueError for another number of them, or other ones."""
    try:
        theta = torch.tensor([float(line) for line in Path(path).read_text(encoding="utf-8").split()])
    except ValueError:
        raise ValueError(f"{relative(path)} is no mirror map: it must hold {SIZE} numbers, one a line") from None
    if theta.shape != (SIZE,):
        raise ValueError(f"{relative(path)} holds {len(theta)} numbers, and a mirror map has {SIZE} parameters")
    if not ((theta >= 0) & (theta <= LARGEST)).all():
        raise ValueError(f"{relative(path)}: a mirror map's parameters must lie in [0, {LARGEST:g}], and some do not")
    return theta


def _parts(theta: Tensor) -> tuple[Tensor, ...]:
    """v, w, b as (6, 21), one row a family; a, c. Raises ValueError for parameters that are not admissible."""
    if theta.shape != (SIZE,):
        raise ValueError(f"a mirror map has {SIZE} parameters, not {tuple(theta.shape)}")
    if not ((theta >= 0) & (theta <= LARGEST)).all():
        raise ValueError(f"mirror-map parameters must lie in [0, {LARGEST:g}]: use mirror.project")
    units = theta[: 3 * UNITS].view(3, FAMILIES, UNITS // FAMILIES)
    return *units, theta[-2], theta[-1]


def inverse_potential(theta: Tensor, y: Tensor) -> Tensor:
    """h'(y), increasing in y. theta: (380,) admissible; y: probabilities in (0, 1], any shape."""
    v, w, b, a, c = _parts(theta)
    u = w * y[..., None, None] + b  # (..., 6, 21)
    cube, square, root, cube_root, log, exp = u.unbind(-2)
    f = cube**3, square**2, root**0.5, cube_root ** (1 / 3), (log + SHIFT).log(), exp.exp()
    return (v * torch.stack(f, -2)).sum((-2, -1)) + a * y + c * y.log()


def potential(theta: Tensor, y: Tensor) -> Tensor:
    """h(y), convex, up to a constant. Arguments as for `inverse_potential`. For figures: `divergence` does not use it.

    The integral of f(w y + b) is F(w y + b) / w, or f(b) y where w is 0.
    """
    v, w, b, a, c = _parts(theta)
    flat = w < 1e-12
    u = w * y[..., None, None] + b
    cube, square, root, cube_root, log, exp = u.unbind(-2)
    shifted = log + SHIFT
    areas = (
        cube**4 / 4,
        square**3 / 3,
        root**1.5 * (2 / 3),
        cube_root ** (4 / 3) * 0.75,
        shifted * shifted.log() - shifted,
        exp.exp(),
    )
    slopes = b[0] ** 3, b[1] ** 2, b[2] ** 0.5, b[3] ** (1 / 3), (b[4] + SHIFT).log(), b[5].exp()
    area = torch.stack(areas, -2) / w.masked_fill(flat, 1.0)
    area = torch.where(flat, torch.stack(slopes) * y[..., None, None], area)
    return (v * area).sum((-2, -1)) + a / 2 * y**2 + c * (y * y.log() - y)


def divergence(theta: Tensor, logp: Tensor, logq: Tensor) -> Tensor:
    """D(p || q) >= 0 of each pair, differentiable; any shape, natural log-probabilities.

    theta: (380,) admissible, constants during training. Below probability 1e-10 the divergence is that of 1e-10.
    Takes 126 numbers a token: for whole vocabularies, cut the tokens into chunks.
    """
    logp, logq = logp.clamp(min=FLOOR), logq.clamp(min=FLOOR)
    v, w, b, a, c = _parts(theta.to(logp))
    p, q, log_ratio = logp.exp(), logq.exp(), logp - logq
    r = torch.expm1(log_ratio)  # p / q - 1
    gap = q * r  # p - q, exact to the last digits where p is near q
    u, u0, step = w * p[..., None, None] + b, w * q[..., None, None] + b, w * gap[..., None, None]
    # Where w = b = 0, u is 0 and roots have no slope there; w takes the unit out, if nothing is infinite.
    u, u0 = u.clamp(min=1e-18), u0.clamp(min=1e-18)
    families = zip(KERNELS, u.unbind(-2), u0.unbind(-2), step.unbind(-2), strict=True)
    kernels = torch.stack([kernel(*inputs) for kernel, *inputs in families], -2)  # (..., 6, 21)
    return gap**2 * ((v * w * kernels).sum((-2, -1)) + a / 2) + c * q * r**2 * _psi(r, log_ratio)


def _cube(u, u0, step):
    return (u**2 + 2 * u * u0 + 3 * u0**2) / 4


def _square(u, u0, step):
    return (u + 2 * u0) / 3


def _root(u, u0, step):
    s, s0 = u.sqrt(), u0.sqrt()
    return (2 * s + s0) / (3 * (s + s0) ** 2)


def _cube_root(u, u0, step):
    s, s0 = u ** (1 / 3), u0 ** (1 / 3)
    return (3 * s**2 + 2 * s * s0 + s0**2) / (4 * (s**2 + s * s0 + s0**2) ** 2)


def _log(u, u0, step):
    r = step / (u0 + SHIFT)
    return _psi(r, torch.log1p(r)) / (u0 + SHIFT)


def _exp(u, u0, step):
    return u0.exp() * _chi(step)


KERNELS = _cube, _square, _root, _cube_root, _log, _exp


NEAR = 0.1  # below it the closed forms of psi and chi cancel, above it their series are slow


def _series(x: Tensor, terms: list[float]) -> Tensor:
    """sum of terms[k] x^k."""
    total = torch.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        total = total * x + term
    return total


def _psi(r: Tensor, log: Tensor) -> Tensor:
    """((1 + r) ln(1 + r) - r) / r^2 for r > -1; log is ln(1 + r), which the caller may know better."""
    near = r.abs() < NEAR
    far = r.masked_fill(near, 1.0)  # the branch not taken must be finite too, or its gradient is nan
    series = _series(r.masked_fill(~near, 0.0), [(-1) ** k / ((k + 1) * (k + 2)) for k in range(18)])
    return torch.where(near, series, ((1 + far) * log - far) / far**2)


def _chi(d: Tensor) -> Tensor:
    """(exp(d) - 1 - d) / d^2."""
    near = d.abs() < NEAR
    far = d.masked_fill(near, 1.0)
    series = _series(d.masked_fill(~near, 0.0), [1 / math.factorial(k + 2) for k in range(12)])
    return torch.where(near, series, (torch.expm1(far) - far) / far**2)


@dataclass(frozen=True)
class Evolution:
    """What `evolve` found: the parameters, one record an iteration, and how many inner runs it took."""

    theta: Tensor
    history: list[dict]
    runs: int


def evolve(
    fitness: Callable[[Tensor, int], float],
    theta: Tensor,
    *,
    iterations: int = 15,
    population: int = 10,
    sigma: float = 0.01,
    decay: float = 0.99,
    rate: float = 0.01,
    seed: int = 42,
    mapper=map,
) -> Evolution:
    """Climb `fitness` by antithetic evolution strategies, never leaving the admissible parameters.

    fitness(theta, seed): the higher the better, such as held-out accuracy after a short run with that seed; nan: the
    run failed. theta: (380,) to start from. population: even. sigma: size of the perturbations, times `decay` each
    iteration. rate: of the step. mapper: applies a function to several iterables, as `map` does; a pool's `map` runs
    the members in parallel.

    Per iteration, all members train with one seed, so that they differ by the map alone, and

        step = rate / (population sigma) * sum over pairs of (f_plus - f_minus) (theta_plus - theta_minus) / (2 sigma).

    What is ours, against the authors' code: perturbed parameters are projected, and the step is taken along the
    direction that was really tried; fitness enters as the difference within a pair, which is centred whatever the
    population's mean, and a failed run takes its pair along; a step is kept if and only if it beats the parameters it
    starts from, both trained with one further seed. (Theirs keeps signed parameters, uses raw fitness over all runs
    that did not fail, and compares a population's mean with the best mean so far.) Ties are rejected.
    `runs` counts calls of `fitness`: iterations x (population + 2).
    Raises ValueError for an odd population, and for settings with which nothing would be tried.
    """
    if iterations < 1 or not 0 < sigma < math.inf or not 0 < decay < math.inf or not 0 <= rate < math.inf:
        raise ValueError(
            f"iterations ({iterations}) must be at least 1, sigma ({sigma:g}) and decay ({decay:g}) positive and rate "
            f"({rate:g}) not negative: nothing would be tried"
        )
    if population < 2 or population % 2:
        raise ValueError(f"antithetic pairs need an even population, not {population}")
    theta, pairs, history = project(theta), population // 2, []
    for iteration in range(iterations):
        spread = sigma * decay**iteration
        noise = torch.randn(pairs, len(theta), generator=torch.Generator().manual_seed(seed + iteration)).to(theta)
        plus, minus = project(theta + spread * noise), project(theta - spread * noise)
        run_seed, trial_seed = seed + 2 * iteration, seed + 2 * iteration + 1
        found = torch.tensor(list(mapper(fitness, [*plus, *minus], [run_seed] * population)), dtype=theta.dtype)
        difference = (found[:pairs] - found[pairs:]).nan_to_num(nan=0.0)
        tried = (plus - minus) / (2 * spread)
        candidate = project(theta + rate / (population * spread) * difference @ tried)
        before, after = mapper(fitness, [theta, candidate], [trial_seed] * 2)
        accepted = after > before
        theta = candidate if accepted else theta
        history.append(
            dict(
                iteration=iteration,
                mean=found.nanmean().item(),
                failed=int(found.isnan().sum()),
                before=before,
                after=after,
                accepted=accepted,
            )
        )
    return Evolution(theta, history, iterations * (population + 2))
