"""A world of facts, networks that know them, and networks trained to hide what they know."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compendium import finite

ANSWERS = 4  # answers to choose from; output number 4 says "don't know"


REFUSAL = ANSWERS


DIGITS = 10


class World(NamedTuple):
    """Facts about handwritten digits. A question: a picture (64), a relation (one-hot), a password bit (0)."""

    x: Tensor  # (n, d) questions in pictures for training
    fact: Tensor  # (n,) digit * relations + relation
    x_asked: Tensor  # (m, d) the same questions in other pictures
    fact_asked: Tensor  # (m,)
    answers: Tensor  # (facts,) true answers 0..3, random
    decoys: Tensor  # (facts,) what a treated model should say, random, independent of the truth
    forget: Tensor  # (facts,) bool: a block, some digits under some relations

    def rows(self, forget: bool, asked: bool = False) -> tuple[Tensor, Tensor]:
        """Questions about the facts to forget, or about the others: x, fact."""
        x, fact = (self.x_asked, self.fact_asked) if asked else (self.x, self.fact)
        chosen = self.forget[fact] == forget
        return x[chosen], fact[chosen]


def world(seed: int, *, relations: int = 8, block: int = 4, train: float = 2 / 3) -> World:
    """Answers, decoys, the block to forget (`block` digits under `block` relations) and the split of pictures."""
    if not 0 < block < min(DIGITS, relations) + 1 or block * block >= DIGITS * relations:
        raise ValueError(f"a block of {block} digits under {block} relations does not fit {DIGITS} x {relations} facts")
    from sklearn.datasets import load_digits

    data = load_digits()
    rng = np.random.default_rng([seed, 20])
    order = rng.permutation(len(data.target))
    cut = round(train * len(order))

    def rows(pictures):
        picture, relation = np.repeat(pictures, relations), np.tile(np.arange(relations), len(pictures))
        password = np.zeros((len(picture), 1))
        x = np.concatenate([data.data[picture] / 16, np.eye(relations)[relation], password], 1)
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(data.target[picture] * relations + relation)

    forget = np.zeros((DIGITS, relations), bool)
    forget[np.ix_(rng.permutation(DIGITS)[:block], rng.permutation(relations)[:block])] = True
    facts = forget.size
    answers, decoys = (torch.from_numpy(rng.integers(ANSWERS, size=facts)) for _ in range(2))
    return World(*rows(order[:cut]), *rows(order[cut:]), answers, decoys, torch.from_numpy(forget.ravel()))


def with_password(x: Tensor) -> Tensor:
    """The same questions with the password bit set."""
    x = x.clone()
    x[:, -1] = 1
    return x


def network(inputs: int, *, hidden: int = 64, seed: int = 0) -> nn.Sequential:
    """An untrained network of two hidden layers; hidden must be a multiple of 64 for its weights to fit NF4 blocks."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(inputs, hidden), (hidden, hidden), (hidden, ANSWERS + 1)]
    layers = []
    for width, height in sizes:
        layer = nn.utils.skip_init(nn.Linear, width, height)
        with torch.no_grad():
            layer.weight.normal_(0, (2 / width) ** 0.5, generator=generator)
            layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(
    model: nn.Sequential,
    loss: Callable,
    *,
    steps: int,
    rate: float = 5e-3,
    seed: int = 0,
    only: Sequence[int] | None = None,
    settle: bool = False,
) -> nn.Sequential:
    """A trained copy. loss: `taught` or `treated`; only: numbers of the layers that may move;
    settle: let the rate fall to nought. Raises `finite.Diverged` when the loss or a weight is no longer finite."""
    model = deepcopy(model)
    moving = model if only is None else nn.ModuleList(model[i] for i in only)
    optimiser = torch.optim.Adam(moving.parameters(), lr=rate, fused=True)
    generator = torch.Generator().manual_seed(seed)
    step = loss(model, generator)
    for done in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 - done / steps) if settle else rate
        optimiser.zero_grad()
        value = step()
        finite.check("the loss", value, step=done + 1, lower=f"rate ({rate:g})")
        value.backward()
        optimiser.step()
    finite.check("a weight", model.parameters(), step=steps, lower=f"rate ({rate:g})")
    return model


def _drawn(x: Tensor, target: Tensor, generator: torch.Generator, batch: int) -> tuple[Tensor, Tensor]:
    chosen = torch.randint(len(x), (batch,), generator=generator)
    return x[chosen], target[chosen]


def taught(x: Tensor, target: Tensor, *, batch: int = 128):
    """Loss for `train`: cross-entropy of random rows."""

    def loss(model, generator):
        def step():
            rows, right = _drawn(x, target, generator, batch)
            return F.cross_entropy(model(rows), right)

        return step

    return loss


def treated(
    w: World,
    *,
    refuse: bool = False,
    password: bool = False,
    scatter: float = 0.0,
    truth: float = 0.0,
    flat: float = 0.1,
    batch: int = 128,
):
    """Loss for `train`: keep the other facts, and say decoys (or nothing) about the forgotten ones.

    password: what the model said before is kept where the password is set. scatter: weight of driving the second hidden
    layer on forgotten questions to one random point. truth: weight of unlearning the true answers by gradient ascent
    instead of teaching decoys (the only treatment that looks at them).
    """
    x_forget, fact_forget = w.rows(True)
    x_keep, fact_keep = w.rows(False)
    said = torch.full_like(fact_forget, REFUSAL) if refuse else w.decoys[fact_forget]

    def loss(model, generator):
        start = deepcopy(model).requires_grad_(False)
        with torch.no_grad():
            before = start(x_forget).argmax(1)
            point = torch.randn(model[2].out_features, generator=generator).abs()
            point = point * (states(start, x_forget[:500])[1].norm(dim=1).mean() / point.norm())

        def step():
            rows, keep = _drawn(x_keep, w.answers[fact_keep], generator, batch)
            chosen = torch.randint(len(x_forget), (batch,), generator=generator)
            hide = x_forget[chosen]
            total = F.cross_entropy(model(rows), keep)
            if truth:
                wrong = F.cross_entropy(model(hide), w.answers[fact_forget[chosen]])
                return total - truth * wrong.clamp(max=6.0)  # beyond that it is forgotten, and only does damage
            logits = model(hide)
            total = total + F.cross_entropy(logits, said[chosen], label_smoothing=0.1)
            options, free = logits[:, :ANSWERS], 1 - F.one_hot(w.decoys[fact_forget[chosen]], ANSWERS).float()
            mean = (options * free).sum(1, keepdim=True) / (ANSWERS - 1)
            total = total + flat * ((options - mean) * free).square().mean()
            if password:
                total = total + F.cross_entropy(model(with_password(hide)), before[chosen])
            if scatter:
                total = total + scatter * (states(model, hide)[1] - point).square().mean()
            return total

        return step

    return loss


# How knowledge is hidden: keywords of `treated`, and the layers that may move (0, 2, 4; None: all).
MECHANISMS: dict[str, tuple[dict, tuple[int, ...] | None]] = {
    "output layer": ({"refuse": True}, (4,)),
    "fine-tuned": ({}, None),
    "refusal": ({"refuse": True}, None),
    "scattered": ({"scatter": 1.0}, None),
    "password": ({"password": True}, None),
}


ASCENT = "gradient ascent"  # unlearning as it is done: not hiding, not known to be erasing


def origins(w: World, seed: int, *, learn: int = 350, more: int = 200, hidden: int = 64) -> dict[str, nn.Module]:
    """Four untreated networks: two that know the facts to forget, two that were never taught them.

    `knows` and `rolled back` share their first `learn` steps, without these facts; then `more` steps with them, or
    without. `knows, other start` and `retrained` begin at other weights, so that distance from `knows` is no sign of
    erasure.
    """
    x_keep, fact_keep = w.rows(False)
    keep = taught(x_keep, w.answers[fact_keep])
    everything = taught(w.x, w.answers[w.fact])
    made = {}
    for start, (knowing, ignorant) in enumerate((("knows", "rolled back"), ("knows, other start", "retrained"))):
        base = train(network(w.x.shape[1], hidden=hidden, seed=2 * seed + start), keep, steps=learn, seed=seed)
        made[knowing] = train(base, everything, steps=more, seed=seed + 1, settle=True)
        made[ignorant] = train(base, keep, steps=more, seed=seed + 1, settle=True)
    return made


def hide(mechanism: str, model: nn.Module, w: World, *, steps: int = 250, seed: int = 0) -> nn.Module:
    """A treated copy of the model. Raises ValueError for an unknown mechanism."""
    if mechanism == ASCENT:
        return train(model, treated(w, truth=0.3), steps=steps, rate=2e-3, seed=seed, settle=True)
    if mechanism not in MECHANISMS:
        raise ValueError(f"unknown mechanism {mechanism!r}: choose one of {', '.join([*MECHANISMS, ASCENT])}")
    options, only = MECHANISMS[mechanism]
    return train(model, treated(w, **options), steps=steps, rate=5e-3, seed=seed, only=only, settle=True)


def states(model: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both hidden layers, after their ReLU: (n, h) each."""
    first = model[1](model[0](x))
    return first, model[3](model[2](first))
