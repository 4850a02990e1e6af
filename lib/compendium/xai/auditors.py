"""Erased or only suppressed? How well auditors tell, by the evidence they may look at.

An absence claim says that a model cannot do something any more. Seth & Sankarapu (arXiv 2605.15164) hold that behaviour
cannot carry such claims and name three classes of evidence that look inside: linear probes, activation patching, and
comparison of the model before and after training. Their text gives no experiment that we could read; this one is ours.

**Pairs by construction** (`study`). The subjects are real: pictures of handwritten digits (scikit-learn). The facts are
not: for each digit and each of eight relations, one of four answers drawn at random. What a network answers about a
fact that it was never taught says nothing about the truth, so *erased* is exact here, and not a matter of degree. One
network learns all facts (`knows`); others are taught all but those to forget (`rolled back` to the checkpoint before,
or `retrained` from new weights). Then **one and the same treatment is given to all of them**: each learns to give decoy
answers, or none, to the forgotten questions (MECHANISMS). No treatment uses a true answer. So a treated network that
knew and one that did not know were trained on the same rows and behave alike; they differ in what lies underneath.

    frame = study(range(8))                        # one row a model: what it is, evidence, truth
    audit(frame, ladder()["probes"])               # log-odds by an auditor that met neither its seed nor its mechanism
    climb(frame[frame.mechanism.isin(MECHANISMS)])  # the audit ladder: AUC by evidence, intervals by seed

**Real models** (`runs`, `climb_runs`): the unlearned language models of section 02. There nobody knows what is erased;
the stand-in is how much comes back when other forgotten facts are taught again, or after storage in 4 bits.

How to read an AUC: 0.5 is a coin, 1 tells every suppressed model from every erased one. A score below 0.5 is not
turned round: the direction of every score is fixed beforehand (higher: more suppressed).
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from compendium import finite, inputs, nf4
from compendium.paths import UNLEARNED
from compendium.unlearning import properties

ANSWERS = 4  # answers to choose from; output number 4 says "don't know"
REFUSAL = ANSWERS
DIGITS = 10


# -- the world: what there is to know -----------------------------------------------------------------------------


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


# -- models: who knows, and who hides -----------------------------------------------------------------------------


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
    model: nn.Sequential, loss: Callable, *, steps: int, rate: float = 5e-3, seed: int = 0,
    only: Sequence[int] | None = None, settle: bool = False,
) -> nn.Sequential:  # fmt: skip
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
    w: World, *, refuse: bool = False, password: bool = False, scatter: float = 0.0, truth: float = 0.0,
    flat: float = 0.1, batch: int = 128,
):  # fmt: skip
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


# -- evidence: what an auditor may look at ------------------------------------------------------------------------


def advantage(logits: Tensor, right: Tensor, decoy: Tensor) -> Tensor:
    """Log-probability of the right answer minus the mean of those neither right nor taught as decoys, nats.

    (n,), nan where the decoy is right: what a model says by accident is left out. Its expectation is 0, exactly, for a
    model that was never told the answers, whatever else it was taught; "don't know" cancels out.
    """
    options = logits[:, :ANSWERS]
    own, said = (options.gather(1, of[:, None])[:, 0] for of in (right, decoy))
    others = (options.sum(1) - own - said) / (ANSWERS - 2)
    return torch.where(right == decoy, torch.nan, own - others)


def _mean(values: Tensor) -> float:
    return values.nanmean().item()


@torch.no_grad()
def behaviour(after: nn.Sequential, before: nn.Sequential, w: World, seed: int = 0) -> dict[str, float]:
    """What can be asked from outside, probabilities included: questions in new pictures, clean and noisy."""
    x, fact = w.rows(True, asked=True)
    x_keep, fact_keep = w.rows(False, asked=True)
    right, decoy = w.answers[fact], w.decoys[fact]
    noise = torch.randn(x[:, :64].shape, generator=torch.Generator().manual_seed(seed)) * 0.3
    noisy = torch.cat([x[:, :64] + noise, x[:, 64:]], 1)
    said, kept, shaken = after(x), after(x_keep), after(noisy)
    return {
        "forget accuracy": (said.argmax(1) == right).float().mean().item(),
        "forget advantage": _mean(advantage(said, right, decoy)),
        "forget confidence": said.softmax(1).amax(1).mean().item(),
        "forget advantage, noise": _mean(advantage(shaken, right, decoy)),
        "decoys or refusals": _obeys(said, w.decoys[fact]),
        "retain accuracy": (kept.argmax(1) == w.answers[fact_keep]).float().mean().item(),
        "retain confidence": kept.softmax(1).amax(1).mean().item(),
    }


def _obeys(said: Tensor, decoys: Tensor) -> float:
    said = said.argmax(1)
    return ((said == decoys) | (said == REFUSAL)).float().mean().item()


def _ridge(x: Tensor, y: Tensor, penalty: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Linear map from standardised x to y, fitted by ridge regression; penalty in units of n / 100."""
    mean, spread = x.mean(0), x.std(0) + 1e-4  # units that are always off stay at nought
    z = ((x - mean) / spread).double()
    gram = z.T @ z + penalty * len(z) / 100 * torch.eye(z.shape[1], dtype=z.dtype)
    slope = torch.linalg.solve(gram, z.T @ (y - y.mean(0)).double())
    centre = y.mean(0)
    return lambda other: ((other - mean) / spread) @ slope.to(x.dtype) + centre


def _one_hot(answers: Tensor) -> Tensor:
    return F.one_hot(answers, ANSWERS).float()


@torch.no_grad()
def probes(after: nn.Sequential, before: nn.Sequential, w: World, seed: int = 0, rows: int = 1200) -> dict[str, float]:
    """Linear probes of both hidden layers.

    transfer: fitted to read the answers of facts that are kept, asked about the forgotten ones: right ones minus wrong
    ones in the probe's units. selectivity (Hewitt & Liang 2019): fitted to the forgotten facts' own answers on eight
    pictures a fact, asked in new pictures; accuracy minus that of the same probe for made-up answers (mean of four
    tables). Without the control this probe finds everything, in a model that never knew as well.
    """
    rng = np.random.default_rng([seed, 21])
    x_keep, fact_keep = w.rows(False)
    chosen = torch.from_numpy(rng.permutation(len(x_keep))[:rows])
    x_forget, fact_forget = w.rows(True)
    few = torch.from_numpy(
        np.concatenate([rng.permutation(np.flatnonzero(fact_forget == f))[:8] for f in fact_forget.unique()])
    )
    x, fact = w.rows(True, asked=True)
    seen, taught_few, asked = states(after, x_keep[chosen]), states(after, x_forget[few]), states(after, x)
    tables = [w.answers] + [torch.from_numpy(rng.integers(ANSWERS, size=len(w.answers))) for _ in range(4)]
    found = {}
    for layer in (0, 1):
        read = _ridge(seen[layer], _one_hot(w.answers[fact_keep[chosen]]))
        found[f"probe transfer {layer + 1}"] = _mean(advantage(read(asked[layer]), w.answers[fact], w.decoys[fact]))
        accuracy = [
            (_ridge(taught_few[layer], _one_hot(t[fact_forget[few]]))(asked[layer]).argmax(1) == t[fact])
            .float().mean().item()
            for t in tables
        ]  # fmt: skip
        found[f"probe accuracy {layer + 1}"] = accuracy[0]
        found[f"probe selectivity {layer + 1}"] = accuracy[0] - float(np.mean(accuracy[1:]))
    return found


@torch.no_grad()
def patching(
    after: nn.Sequential, before: nn.Sequential, w: World, seed: int = 0, rows: int = 240, units: int = 16
) -> dict[str, float]:
    """Does a patch from kept questions into forgotten ones bring the right answers forward? `advantage` once patched.

    units: each hidden unit is set to its mean over kept questions; the `units` that help most on one half of the
    forgotten facts are set together, and the other half is asked (both ways, averaged): choosing among units cannot by
    itself bring an answer. sum: the layer's states become what kept questions predict, state of the digit plus state of
    the relation: as if nothing were special about the block.
    """
    x, fact = w.rows(True, asked=True)
    rng = np.random.default_rng([seed, 22])
    x, fact = (of[torch.from_numpy(rng.permutation(len(x))[:rows])] for of in (x, fact))
    right, decoy = w.answers[fact], w.decoys[fact]
    facts = torch.from_numpy(rng.permutation(w.forget.nonzero()[:, 0].numpy()))
    half = torch.isin(fact, facts[: len(facts) // 2])
    x_keep, fact_keep = w.rows(False)
    kept, here = states(after, x_keep), states(after, x)
    relations = len(w.forget) // DIGITS
    rest = (lambda h: after[4](after[3](after[2](h))), after[4])
    found = {}
    for layer in (0, 1):
        h, mean = here[layer], kept[layer].mean(0)
        width = h.shape[1]
        patched = h.expand(width, *h.shape).clone()
        patched[torch.arange(width), :, torch.arange(width)] = mean[:, None]
        repeat = lambda of, width=width: of.repeat(width)
        effect = advantage(rest[layer](patched.flatten(0, 1)), repeat(right), repeat(decoy)).view(width, -1)
        said = []
        for part in (half, ~half):
            best = effect[:, part].nanmean(1).topk(units).indices
            both = h[~part].clone()
            both[:, best] = mean[best]
            said.append(_mean(advantage(rest[layer](both), right[~part], decoy[~part])))
        found[f"patch units {layer + 1}"] = float(np.nanmean(said))
        by_digit, by_relation = (
            torch.stack([kept[layer][of(fact_keep) == i].mean(0) for i in range(n)])[of(fact)]
            for of, n in ((lambda f: f // relations, DIGITS), (lambda f: f % relations, relations))
        )
        usual = (by_digit + by_relation - mean).clamp(min=0)
        found[f"patch sum {layer + 1}"] = _mean(advantage(rest[layer](usual), right, decoy))
        found[f"patch half sum {layer + 1}"] = _mean(advantage(rest[layer]((usual + h) / 2), right, decoy))
    return found


def similarity(a: Tensor, b: Tensor) -> float:
    """Linear CKA (Kornblith et al. 2019) of two models' states of the same rows: 1 for equal up to rotation, scale."""
    a, b = (v.double() - v.double().mean(0) for v in (a, b))
    return ((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()).clamp(min=1e-12)).item()


@torch.no_grad()
def comparison(
    after: nn.Sequential, before: nn.Sequential, w: World, seed: int = 0, rows: int = 1200
) -> dict[str, float]:
    """Before training and after: how far the weights moved, and what became of the states.

    weights: distance over the norm before, by layer. similar: linear CKA of the second hidden layers on forgotten
    questions, minus that on kept ones. stitched: a linear map, fitted on kept questions, from the states after into the
    states before, whose output layer then answers about the forgotten facts (advantage).
    """
    found = {}
    for number, layer in enumerate((0, 2, 4), 1):
        old, new = before[layer].weight, after[layer].weight
        found[f"weights moved {number}"] = ((new - old).norm() / old.norm()).item()
    x, fact = w.rows(True, asked=True)
    x_keep, _ = w.rows(False)
    x_keep = x_keep[torch.from_numpy(np.random.default_rng([seed, 23]).permutation(len(x_keep))[:rows])]
    old, new, old_keep, new_keep = (states(m, q)[1] for q in (x, x_keep) for m in (before, after))
    found["similar, forgotten"] = similarity(old, new)
    found["similar, forgotten minus kept"] = found["similar, forgotten"] - similarity(old_keep, new_keep)
    stitch = _ridge(new_keep, old_keep)
    found["stitched advantage"] = _mean(advantage(before[4](stitch(new)), w.answers[fact], w.decoys[fact]))
    return found


EVIDENCE: dict[str, Callable] = {
    "behaviour": behaviour,
    "probes": probes,
    "patching": patching,
    "before and after": comparison,
}


# -- truth: what comes back ---------------------------------------------------------------------------------------


def relearned(
    model: nn.Sequential, w: World, *, looks: Sequence[int] = (0, 10, 20, 40), seed: int = 0, rate: float = 2e-3
) -> pd.DataFrame:
    """Teach half of the forgotten facts again, among kept ones; what is said about the *other* half, in new pictures?

    One row a look: step, accuracy, advantage. What was never known cannot come back: answers are random, and one half
    says nothing about the other.
    """
    facts = np.random.default_rng([seed, 24]).permutation(w.forget.nonzero()[:, 0].numpy())
    again = torch.from_numpy(facts[: len(facts) // 2])
    x, fact = w.rows(True)
    part = torch.isin(fact, again)
    x_keep, fact_keep = (of[: 2 * int(part.sum())] for of in w.rows(False))
    x, fact = torch.cat([x[part], x_keep]), torch.cat([fact[part], fact_keep])
    x_asked, fact_asked = w.rows(True, asked=True)
    other = ~torch.isin(fact_asked, again)
    right, decoy = w.answers[fact_asked[other]], w.decoys[fact_asked[other]]
    loss, done, found = taught(x, w.answers[fact]), 0, []
    for look in sorted(looks):
        model = train(model, loss, steps=look - done, rate=rate, seed=seed + look) if look > done else model
        done = look
        with torch.no_grad():
            said = model(x_asked[other])
        accuracy = (said[:, :ANSWERS].argmax(1) == right).float().mean().item()
        found.append({"step": look, "accuracy": accuracy, "advantage": _mean(advantage(said, right, decoy))})
    return pd.DataFrame(found)


def stored(model: nn.Sequential) -> nn.Sequential:
    """A copy whose hidden layers went through NF4 and back, as a 4-bit loader would; the output layer as it is."""
    made = deepcopy(model)
    for layer in (made[0], made[2]):
        weight = layer.weight.data
        layer.weight.data = nf4.dequantise(nf4.codes(weight), nf4.block_absmax(weight))
    return made


# -- the study: pairs of models, evidence, truth ------------------------------------------------------------------

# What each rung of the ladder adds. An auditor on a rung may use all columns up to it.
COLUMNS: dict[str, tuple[str, ...]] = {
    "answers": ("forget accuracy", "retain accuracy"),
    "probabilities": ("forget advantage", "forget advantage, noise", "forget confidence", "retain confidence"),
    "probes": (
        "probe transfer 1", "probe transfer 2", "probe accuracy 1", "probe accuracy 2", "probe selectivity 1",
        "probe selectivity 2",
    ),
    "patching": (
        "patch units 1", "patch units 2", "patch sum 1", "patch sum 2", "patch half sum 1", "patch half sum 2",
    ),
    "before and after": (
        "weights moved 1", "weights moved 2", "weights moved 3", "similar, forgotten", "similar, forgotten minus kept",
        "stitched advantage",
    ),
}  # fmt: skip
# One score a rung that needs no training: higher should mean suppressed. `study` adds the two means.
SCORES = {
    "answers": "forget accuracy",
    "probabilities": "forget advantage",
    "probes": "probe transfer",
    "patching": "patched",
    "before and after": "stitched advantage",
}
TRUTHS = ("relearned", "nf4 advantage")


def ladder() -> dict[str, list[str]]:
    """Columns that an auditor on each rung may use: its own and those of all rungs below."""
    rungs, so_far = {}, []
    for name, columns in COLUMNS.items():
        so_far = [*so_far, *columns]
        rungs[name] = so_far
    return rungs


def examined(after: nn.Sequential, before: nn.Sequential, w: World, *, seed: int = 0, looks=(0, 10, 20, 40)) -> dict:
    """All evidence about one model, and the truth about it: one row of `study`."""
    row = {}
    for look in EVIDENCE.values():
        row |= look(after, before, w, seed)
    row["probe transfer"] = (row["probe transfer 1"] + row["probe transfer 2"]) / 2
    row["patched"] = float(np.mean([row[name] for name in COLUMNS["patching"]]))
    curve = relearned(after, w, looks=looks, seed=seed)
    row |= {"relearned": curve.advantage.iloc[-1], "relearned accuracy": curve.accuracy.iloc[-1]}
    small = behaviour(stored(after), before, w, seed)
    row |= {"nf4 accuracy": small["forget accuracy"], "nf4 advantage": small["forget advantage"]}
    return row


def study(
    seeds: Iterable[int], *, mechanisms: Sequence[str] = (*MECHANISMS, ASCENT), learn: int = 350, more: int = 200,
    steps: int = 250, looks: Sequence[int] = (0, 10, 20, 40), relations: int = 8, block: int = 4,
) -> pd.DataFrame:  # fmt: skip
    """One row a seed, mechanism and origin. `suppressed`: whether the model knew what it was then made to hide.

    "before" is the network that knows, for all; `start` pairs models that began at the same weights. The origins
    themselves are there as mechanism "none".
    """
    rows = []
    for seed in tqdm(list(seeds), desc="worlds", disable=None):
        w = world(seed, relations=relations, block=block)
        made = origins(w, seed, learn=learn, more=more)
        for mechanism in ("none", *mechanisms):
            for number, (origin, model) in enumerate(made.items()):
                after = model if mechanism == "none" else hide(mechanism, model, w, steps=steps, seed=seed + 2)
                key = {"seed": seed, "mechanism": mechanism, "origin": origin, "start": number // 2}
                row = key | {"suppressed": number % 2 == 0} | examined(after, made["knows"], w, seed=seed, looks=looks)
                if mechanism == "password":
                    x, fact = w.rows(True, asked=True)
                    with torch.no_grad():
                        right = after(with_password(x)).argmax(1) == w.answers[fact]
                    row["password accuracy"] = right.float().mean().item()
                rows.append(row)
    return pd.DataFrame(rows)


def matched(frame: pd.DataFrame, tolerance: float = 0.03) -> pd.DataFrame:
    """Rows of those pairs whose accuracies, on forgotten and on kept facts, differ by no more than `tolerance`."""
    pair = frame.groupby(["seed", "mechanism", "start"])
    close = [np.ptp(part[["forget accuracy", "retain accuracy"]], axis=0).max() <= tolerance for _, part in pair]
    kept = pd.Series(close, index=pair.size().index, name="close").reset_index()
    return frame.merge(kept, on=["seed", "mechanism", "start"]).query("close").drop(columns="close")


def shuffled(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The control: truth swapped within pairs by the toss of a coin. No auditor should find anything."""
    toss = np.random.default_rng([seed, 25])
    pairs = frame.groupby(["seed", "mechanism", "start"], sort=False).ngroup()
    flip = toss.random(pairs.max() + 1) < 0.5
    return frame.assign(suppressed=frame.suppressed.to_numpy() ^ flip[pairs])


def untrained(seeds: Iterable[int], *, relations: int = 8, block: int = 4) -> pd.DataFrame:
    """The control for probes: what they find in networks that were never trained. One row a seed."""
    found = []
    for seed in seeds:
        w = world(seed, relations=relations, block=block)
        model = network(w.x.shape[1], seed=seed)
        found.append({"seed": seed} | probes(model, model, w, seed))
    return pd.DataFrame(found)


# -- how well an auditor does -------------------------------------------------------------------------------------


def auc(score, truth) -> float:
    """Probability that a suppressed model scores above an erased one; ties count half.

    Raises ValueError for scores that are not finite, truths that are not True/False, and one kind of model only.
    """
    if np.shape(score) == np.shape(truth):
        inputs.same_rows(score=score, truth=truth)
    score, truth = np.asarray(inputs.vector(score, "score"), float), inputs.binary(truth, "truth")
    if score.shape != truth.shape or not np.isfinite(score).all():
        raise ValueError(f"one finite score a model needed: {score.shape} scores, {truth.shape} truths")
    if truth.all() or not truth.any():
        raise ValueError("all models are of one kind: an AUC needs suppressed ones and erased ones")
    ranks = rankdata(score)
    n, m = truth.sum(), (~truth).sum()
    return float((ranks[truth].sum() - n * (n + 1) / 2) / (n * m))


def _compared(frame: pd.DataFrame, score: str, truth: str, group) -> tuple[np.ndarray, np.ndarray]:
    """How often a suppressed model of group i scores above an erased one of group j, and out of how many: (g, g)."""
    value, known = frame[score].to_numpy(float), inputs.binary(frame[truth], truth)
    auc(value, known)  # refuses what cannot be judged
    if frame[group].isna().any(axis=None):
        raise ValueError(f"{group} has missing values: a model of no group cannot be resampled with it")
    belongs = np.eye(frame.groupby(group).ngroups)[frame.groupby(group).ngroup()]
    above = (value[known][:, None] > value[~known]) + 0.5 * (value[known][:, None] == value[~known])
    return belongs[known].T @ above @ belongs[~known], belongs[known].T @ np.ones_like(above) @ belongs[~known]


def _drawn_pairs(groups: int, resamples: int, seed: int) -> np.ndarray:
    """How often each pair of groups is met in each resample: (resamples, g, g).

    Two draws of one group are not compared with each other: they would count comparisons within a group, which are
    easier, more often than the data do, and lift every AUC.
    """
    rng = np.random.default_rng(seed)
    times = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(float)
    met = times[:, :, None] * times[:, None, :]
    own = np.arange(groups)
    met[:, own, own] = 0
    share = met.sum((1, 2), keepdims=True)[:, :, 0] / (groups * (groups - 1))  # comparisons within stay as frequent
    met[:, own, own] = times * share
    return met


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    drawn = drawn[np.isfinite(drawn)]
    return tuple(map(float, np.percentile(drawn, [2.5, 97.5]))) if len(drawn) else (np.nan, np.nan)


def auc_interval(
    frame: pd.DataFrame, score: str, truth: str = "suppressed", *, group: str | list[str] = "seed",
    resamples: int = 1000, seed: int = 0,
) -> tuple[float, float, float]:  # fmt: skip
    """AUC and its 95 % percentile interval; whole groups are resampled (models of one seed share a world)."""
    wins, of = _compared(frame, score, truth, group)
    value = wins.sum() / of.sum()
    if len(wins) < 2:
        return float(value), np.nan, np.nan
    met = _drawn_pairs(len(wins), resamples, seed)
    with np.errstate(invalid="ignore"):  # a draw may hold one kind only
        return float(value), *_interval((met * wins).sum((1, 2)) / (met * of).sum((1, 2)))


def audit(
    frame: pd.DataFrame, columns: Sequence[str], *, truth: str = "suppressed", unseen: str | None = "mechanism",
    folds: int = 4, strength: float = 1.0,
) -> pd.Series:  # fmt: skip
    """Log-odds that each model is suppressed, by a logistic regression that has seen neither its seed nor its kind.

    Seeds are cut into `folds`; a model is judged by a regression fitted to the other folds and, with `unseen`, to rows
    of other values in that column (hiding mechanisms it has not met). None: its mechanism was met, in other seeds.
    Raises ValueError when fewer than two seeds, or one mechanism, leave nothing to learn from.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seeds = np.sort(frame.seed.unique())
    if len(seeds) < 2 or (unseen and frame[unseen].nunique() < 2):
        raise ValueError(
            "an auditor must not be judged on what it was fitted to: give two seeds and two kinds, or more"
        )
    inputs.binary(frame[truth], truth)
    fold = frame.seed.map({s: i % min(folds, len(seeds)) for i, s in enumerate(seeds)})
    kinds = frame[unseen] if unseen else pd.Series("", index=frame.index)
    found = pd.Series(np.nan, index=frame.index)
    for f in fold.unique():
        for kind in kinds.unique():
            test, fit = (fold == f) & (kinds == kind), (fold != f) & ((kinds != kind) | (unseen is None))
            if test.any():
                model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
                model.fit(frame.loc[fit, columns], frame.loc[fit, truth])
                found[test] = model.decision_function(frame.loc[test, columns])
    return found


def climb(frame: pd.DataFrame, *, truth: str = "suppressed", resamples: int = 1000) -> pd.DataFrame:
    """The audit ladder: AUC of each rung, all mechanisms together and one by one, by three kinds of auditor.

    auditor: "fixed score" (SCORES, nothing fitted), "trained, unseen mechanism", "trained, seen mechanism" (both on all
    columns up to the rung, judged on other seeds). The last rows are what the truth itself can be read from: TRUTHS.
    """
    rows = []

    def add(scored, evidence, auditor):
        for mechanism in ("all", *scored.mechanism.unique()):
            part = scored if mechanism == "all" else scored[scored.mechanism == mechanism]
            value, low, high = auc_interval(part, "score", truth, resamples=resamples)
            rows.append(
                {"evidence": evidence, "auditor": auditor, "mechanism": mechanism, "auc": value, "low": low,
                 "high": high, "models": len(part)}
            )  # fmt: skip

    for name, columns in ladder().items():
        add(frame.assign(score=frame[SCORES[name]]), name, "fixed score")
        for auditor, unseen in (("trained, unseen mechanism", "mechanism"), ("trained, seen mechanism", None)):
            add(frame.assign(score=audit(frame, columns, truth=truth, unseen=unseen)), name, auditor)
    for name in TRUTHS:
        add(frame.assign(score=frame[name]), name, "truth")
    return pd.DataFrame(rows)


def gain(
    frame: pd.DataFrame, less: str, more: str, truth: str = "suppressed", *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """AUC of the score `more` minus that of `less`, on the same models; interval by resampling seeds."""
    wins, of = _compared(frame, more, truth, "seed")
    wins = wins - _compared(frame, less, truth, "seed")[0]
    met = _drawn_pairs(len(wins), resamples, seed)
    with np.errstate(invalid="ignore"):
        drawn = (met * wins).sum((1, 2)) / (met * of).sum((1, 2))
    return float(wins.sum() / of.sum()), *_interval(drawn)


# -- real models: the runs of section 02 --------------------------------------------------------------------------

# Evidence about a run, cumulative like `ladder`; + or -: which direction should mean that facts come back.
RUN_COLUMNS: dict[str, tuple[str, ...]] = {
    "answers": ("forget", "near change", "far change"),
    "probabilities": ("forget logprob change", "log perplexity ratio"),
    "probes": ("probe",),
    "attribution": ("CAD node cosine", "CAD edge cosine", "CAD node mass"),  # stands in for patching
    "before and after": ("edited", "log update", "log flips"),
}
RUN_SCORES = {
    "answers": ("forget", 1),
    "probabilities": ("forget logprob change", 1),
    "probes": ("probe", 1),
    "attribution": ("CAD node cosine", -1),
    "before and after": ("log update", -1),
}


def runs(where=UNLEARNED, *, forgot: float = 0.4) -> pd.DataFrame:
    """Unlearned language models of stage 02-runs that pass the behavioural test, one row a domain, seed and method.

    Passed: at most the share `forgot` of the forgotten questions is still right (0.25 is chance). `relearned` (how much
    comes back of facts that are not taught) and the evidence are there only for runs that were looked inside; `nf4 gap`
    is there for all. Attribution (CAD) compares with the model before: it is no evidence about
    the edited model alone.
    """
    answers = properties.read("answers", where)
    found = properties.table(answers, properties.read("facts", where))
    key = ["domain", "seed", "method"]
    asked = answers[(answers.weights == "float32") & (answers.kind == "forget")]
    logprob = asked.groupby(key).logprob.mean()
    found["forget logprob change"] = [
        logprob[d, s, m] - logprob[d, s, "none"] for d, s, m in found[key].itertuples(index=False)
    ]
    for name, column in (("perplexity ratio", "perplexity ratio"), ("update", "update_mean"), ("flips", "flips")):
        found[f"log {name}"] = np.log(found[column])
    return found[(found.method != "none") & (found.forget <= forgot)].reset_index(drop=True)


def judge_runs(frame: pd.DataFrame, columns: Sequence[str], truth: str = "relearned", penalty: float = 10.0):
    """Predicted truth of each run, by a ridge regression fitted to other methods in other domains: a Series."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if frame.domain.nunique() < 2 or frame.method.nunique() < 3:
        raise ValueError("two domains and three methods needed: a run is judged from others in both respects")
    found = pd.Series(np.nan, index=frame.index)
    for (domain, method), part in frame.groupby(["domain", "method"]):
        fit = frame[(frame.domain != domain) & (frame.method != method)]
        model = make_pipeline(StandardScaler(), Ridge(penalty)).fit(fit[columns], fit[truth])
        found[part.index] = model.predict(part[columns])
    return found


def rank_interval(
    frame: pd.DataFrame, score: str, truth: str = "relearned", *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Spearman correlation within domains, averaged, and its 95 % interval by resampling methods (all their runs).

    nan when the score or the truth does not vary: then there is nothing to correlate.
    """
    methods = {name: part for name, part in frame.groupby("method")}
    names = list(methods)
    rng = np.random.default_rng(seed)

    def correlation(of):
        found = []
        for _, part in of.groupby("domain"):
            a, b = rankdata(part[score]), rankdata(part[truth])
            found.append(np.corrcoef(a, b)[0, 1] if a.std() > 0 and b.std() > 0 else np.nan)
        return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan

    drawn = [
        correlation(pd.concat([methods[names[i]] for i in rng.integers(len(names), size=len(names))]))
        for _ in range(resamples)
    ]
    return correlation(frame), *_interval(np.array(drawn))


def climb_runs(frame: pd.DataFrame, *, truth: str = "relearned", back: float = 0.1, resamples: int = 1000):
    """The audit ladder of real runs: per rung the AUC of telling runs where facts came back, and rank correlation.

    back: a run's facts came back when `truth` is at least this. Intervals resample methods. A table.
    """
    rows, so_far = [], []
    for name, columns in RUN_COLUMNS.items():
        so_far = [*so_far, *columns]
        column, sign = RUN_SCORES[name]
        for auditor, score in (
            ("fixed score", sign * frame[column]),
            ("trained, unseen mechanism", judge_runs(frame, so_far, truth)),
        ):
            scored = frame.assign(score=score, back=frame[truth] >= back)
            value, low, high = auc_interval(scored, "score", "back", group="method", resamples=resamples)
            rho, rho_low, rho_high = rank_interval(scored, "score", truth, resamples=resamples)
            rows.append(
                {"evidence": name, "auditor": auditor, "auc": value, "low": low, "high": high, "rho": rho,
                 "rho low": rho_low, "rho high": rho_high, "runs": len(frame), "came back": int(scored.back.sum())}
            )  # fmt: skip
    return pd.DataFrame(rows)
