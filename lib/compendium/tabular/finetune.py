"""Adapting a prior-fitted network to one table: which weights move, on what episodes, for how long.

An *episode* is a table cut in two: support rows are shown with their classes, and the loss is the cross-entropy of the
query rows. Strategies differ in the episodes and in the weights:

| strategy | support of a step | weights |
|---|---|---|
| `zero-shot` | | none |
| `meta` | many small supports, drawn by class | all |
| `sft` | all rows but the query, as at prediction | all |
| `lora`, `meta lora` | as `sft`, `meta` | low-rank adapters on q, k, v, out, up, down; all else frozen |
| `sft, 8 rows` | 8 rows, not by class, and 8 to predict | all |
| `sft, 32 rows`, `sft, 128 rows`, `sft, all rows` | more rows, all else as with 8 | all |
| `meta, as published` | 48 rows, not by class, and 32 to predict | all |
| `lora, as published` | as `sft, 8 rows` | adapters beside weights that stay trainable, see `injected` |

The settings of `sft, 8 rows` and of those as published are what the code of the fine-tuning study (arXiv 2601.09654,
TabTune 0.2.1) does to TabICL-like models, which differs from the paper's text: its supervised fine-tuning shows the
model 8 rows, so that what it changes is the length of contexts the model is used to. The rows between make that
visible: they differ from it in the support alone. Two liberties: all published settings take 100 steps (theirs are 5
passes in 16s, so 94 for 300 rows, and 5,000 episodes of meta-learning), and an episode whose query holds a class that
is not shown loses that row, where theirs is thrown away.

Ours shuffle columns and classes in every episode, hold out rows by class, and keep the weights that predicted these
best, the untouched ones included: early stopping that can say that nothing helped. Their rates are those of a search
on development sets (`compendium.tabular.studies.learning_rates`). Published settings hold out nothing and keep the
last weights.

    network, log = adapt(network, x, y, nominal, STRATEGIES["sft"], seed=0)
    AdaptedPFN(strategy="sft").fit(x_train, y_train).predict_proba(x_test)
"""

import logging
import math
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import column_or_1d
from torch import Tensor, nn
from torch.nn import functional as F

from compendium import finite, formats
from compendium.tabular.pfn import Member, Network, PFNClassifier, logits, stratified

TARGETS = ("q", "k", "v", "out", "up", "down")


@dataclass(frozen=True)
class Strategy:
    """How to adapt. The defaults are full fine-tuning with the whole table in context.

    Raises ValueError for settings that cannot be.
    """

    support: tuple[int, int] | None = None  # rows, drawn between these; None: all that are not in the query
    query: int | float = 0.2  # rows to predict, or their share of all rows
    by_class: bool = True  # draw support by class; False: at random, and queries of unseen classes are dropped
    shuffle: bool = True  # columns and classes in another order each episode
    episodes: int = 1  # per step
    steps: int = 60
    rate: float = 3e-4
    weight_decay: float = 0.01
    schedule: bool = True  # warm up over a tenth of the steps, then a cosine to 0
    clip: float | None = 1.0
    held_out: float = 0.2  # share of rows that choose among weights; 0: keep the last
    patience: int = 5  # looks without improvement before stopping
    every: int = 5  # steps between looks
    weights: str = "all"  # "all", "lora" or "injected"
    rank: int = 8
    alpha: int = 16

    def __post_init__(self):
        low, high = self.support or (1, 1)
        wrong = {
            f"support {self.support}: two numbers of rows, the lower first": not 1 <= low <= high,
            f"held_out {self.held_out}: a share from 0 to below 1": not 0 <= self.held_out < 1,
            f"rate {self.rate}: a positive number": not 0 < self.rate < math.inf,
            f"every {self.every}: at least 1": self.every < 1,
            f"weights {self.weights!r}: all, lora or injected": self.weights not in ("all", "lora", "injected"),
        }
        if said := [text for text, is_so in wrong.items() if is_so]:
            raise ValueError(f"a strategy has {said[0]}")


_published = Strategy(
    by_class=False,
    shuffle=False,
    weight_decay=0.0,
    schedule=False,
    clip=None,
    held_out=0.0,
    support=(8, 8),
    query=8,
    rate=1e-5,
    steps=100,
)


STRATEGIES = {
    "zero-shot": None,
    "meta": Strategy(support=(48, 256), query=64, episodes=2),
    "sft": Strategy(),
    "lora": Strategy(weights="lora", rate=1e-3),
    "meta lora": Strategy(support=(48, 256), query=64, episodes=2, weights="lora", rate=3e-3),
    "sft, 8 rows": _published,
    "sft, 32 rows": replace(_published, support=(32, 32)),
    "sft, 128 rows": replace(_published, support=(128, 128)),
    "sft, all rows": replace(_published, support=None),
    "meta, as published": replace(_published, support=(48, 48), query=32, rate=2e-6),
    "lora, as published": replace(_published, weights="injected"),
}


class Episode:
    """Support and query rows of one table as the network reads them; `len` is how many rows the query has."""

    def __init__(self, x, y, nominal, strategy: Strategy, rng: np.random.Generator):
        query = strategy.query if isinstance(strategy.query, int) else max(1, round(strategy.query * len(y)))
        query = min(query, len(y) // 2)
        room = len(y) - query
        low, high = (room, room) if strategy.support is None else strategy.support
        most = min(int(rng.integers(low, high + 1)), room)
        if strategy.by_class:
            order = stratified(y, most, rng)
            rest = np.setdiff1d(np.arange(len(y)), order)
            ask = rest[stratified(y[rest], query, rng)]
        else:
            shuffled = rng.permutation(len(y))
            order, ask = shuffled[:most], shuffled[most : most + query]
        known = np.unique(y[order])
        ask = ask[np.isin(y[ask], known)]  # nothing can be said about a class that is not shown
        codes = np.searchsorted(known, y)
        number = int(rng.integers(2**31)) if strategy.shuffle else 0
        member = Member(x[order], codes[order], nominal, seed=0, number=number, context=most)
        self.support, self.classes = member.x, member.y
        self.query = member.place(x[ask])
        self.truth = member.classes[codes[ask]]

    def __len__(self) -> int:
        return len(self.truth)

    def loss(self, network) -> Tensor:
        """Mean cross-entropy of the query, nats."""
        here = lambda values: torch.from_numpy(values).to(next(network.parameters()).device)
        found = network(here(np.concatenate([self.support, self.query]))[None], here(self.classes)[None])[0]
        return F.cross_entropy(found, here(self.truth))


def with_lora(network: Network, *, rank: int, alpha: int, seed: int = 0):
    """The network inside a peft model: adapters on TARGETS of every layer, all other weights frozen."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # says that a kernel is missing that we do not use
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(TARGETS))
    return get_peft_model(network, config)


class _Unreached(nn.Module):
    """An adapter whose forward pass is never run: the layer's own weight is used in its place."""

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x)


class _Beside(_Unreached):
    """An adapter that works: base plus (alpha / rank) B A."""

    def __init__(self, base: nn.Linear, rank: int, alpha: int):
        super().__init__(base, rank)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.lora_B(self.lora_A(x))


def injected(network: Network, *, rank: int, alpha: int, seed: int = 0) -> Network:
    """What the study's adapter injection does to a model of this kind, for comparison.

    Adapters wrap the linear layers that it finds by name. It does not find the query, key and value maps (there they
    are one raw parameter), the attention's output map is used without calling its module, so that its adapter gets no
    gradient, and nothing is frozen but what is wrapped: q, k, v, norms and embeddings go on training in full.
    """
    torch.manual_seed(seed)
    for layer in network.layers:
        layer.out = _Unreached(layer.out, rank)
        layer.up, layer.down = _Beside(layer.up, rank, alpha), _Beside(layer.down, rank, alpha)
    network.read, network.head = _Beside(network.read, rank, alpha), _Beside(network.head, rank, alpha)
    return network


def _prepared(network: Network, strategy: Strategy, seed: int):
    """A copy of the network, in training mode, whose trainable weights are the strategy's."""
    network = deepcopy(network).requires_grad_(True)
    make = {"all": lambda n, **_: n, "lora": with_lora, "injected": injected}[strategy.weights]
    return make(network, rank=strategy.rank, alpha=strategy.alpha, seed=seed).train()


def _plain(network) -> nn.Module:
    """The adapted network for prediction; adapters of peft merged into the weights."""
    merged = network.merge_and_unload() if hasattr(network, "merge_and_unload") else network
    return merged.requires_grad_(False).eval()


def adapt(
    network: Network,
    x: np.ndarray,
    y: np.ndarray,
    nominal: np.ndarray,
    strategy: Strategy | None,
    *,
    seed: int = 0,
    context: int = 1000,
) -> tuple[nn.Module, pd.DataFrame]:
    """`(adapted network, log)`; the network given is left as it was, and returned as it is for no strategy.

    x: (rows, columns) numbers, codes in nominal columns, nan: missing; y: (rows,) classes 0 .. K-1. context: most rows
    in a support or in the context that held-out rows see. The log has a row a look: step, log-loss of the held-out
    rows (nats; nan if none are), mean training loss since the last look, and whether it was the best so far. Tables
    of fewer than 10 rows, or of one class, are not adapted to. Raises `finite.Diverged` when a loss, a gradient or a
    weight is no longer finite.
    """
    if strategy is None or len(y) < 10 or len(np.unique(y)) < 2:
        return network, pd.DataFrame([{"step": 0, "held out": math.nan, "training": math.nan, "best": True}])
    rng = np.random.default_rng([seed, 4])
    held = round(strategy.held_out * len(y))
    order = rng.permutation(len(y))
    chosen = order[stratified(y[order], len(y) - held, rng)]
    left = np.setdiff1d(np.arange(len(y)), chosen)
    left = left[np.isin(y[left], y[chosen])]
    watched = held > 0 and len(left) > 0
    known, codes = np.unique(y[chosen], return_inverse=True)
    if watched:
        members = [Member(x[chosen], codes, nominal, seed=seed, number=i, context=context) for i in range(2)]
        truth = np.searchsorted(known, y[left])

    def look() -> float:
        if not watched:
            return math.nan
        model.eval()
        mean = logits(model, members, x[left]).mean(0)
        model.train()
        logp = mean - np.logaddexp.reduce(mean, axis=1, keepdims=True)
        return float(-logp[np.arange(len(left)), truth].mean())

    model = _prepared(network, strategy, seed)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=strategy.rate, weight_decay=strategy.weight_decay)
    best = [w.detach().clone() for w in weights]
    log = [{"step": 0, "held out": look(), "training": math.nan, "best": True}]
    least, losses, since, lower = log[0]["held out"], [], 0, f"the strategy's rate ({strategy.rate:g})"
    for step in range(1, strategy.steps + 1):
        episodes = [Episode(x[chosen], codes, nominal, strategy, rng) for _ in range(strategy.episodes)]
        episodes = [e for e in episodes if len(e)]
        if not episodes:
            continue
        if strategy.schedule:
            warm = max(1, strategy.steps // 10)
            cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, strategy.steps - warm)))
            optimiser.param_groups[0]["lr"] = strategy.rate * min(step / warm, cosine)
        optimiser.zero_grad(set_to_none=True)
        for e in episodes:
            value = e.loss(model) / len(episodes)
            finite.check("the loss", value, step=step, lower=lower)
            value.backward()
            losses.append(value.item() * len(episodes))
        if strategy.clip is not None:
            finite.clip(weights, strategy.clip, step=step, lower=lower)
        optimiser.step()
        finite.check("a weight", weights, step=step, lower=lower)
        if step % strategy.every and step < strategy.steps:
            continue
        seen = look()
        if watched:
            finite.check("the loss of held-out rows", seen, step=step, lower=lower)
        better = not watched or seen < least
        log.append({"step": step, "held out": seen, "training": float(np.mean(losses)), "best": better})
        losses, since = [], 0 if better else since + 1
        if better:
            least, best = seen, [w.detach().clone() for w in weights]
        elif since >= strategy.patience:
            break
    with torch.no_grad():
        for weight, kept in zip(weights, best, strict=True):
            weight.copy_(kept)
    return _plain(model), pd.DataFrame(log)


class AdaptedPFN(PFNClassifier):
    """A `PFNClassifier` whose network is adapted to the training rows in `fit`.

    strategy: a name in STRATEGIES or a Strategy. After `fit`, `log_` has the course of training. Training draws rows by
    their place in the table, so another order of rows is another draw, as another random_state is.
    """

    def __init__(
        self,
        network=None,
        *,
        strategy="sft",
        members=8,
        context=1000,
        nominal=None,
        temperature=1.0,
        random_state=None,
        device="cpu",
    ):
        super().__init__(
            network,
            members=members,
            context=context,
            nominal=nominal,
            temperature=temperature,
            random_state=random_state,
            device=device,
        )
        self.strategy = strategy

    def fit(self, X, y):
        if isinstance(self.strategy, str) and self.strategy not in STRATEGIES:
            raise ValueError(f"unknown strategy {self.strategy!r}: choose one of {', '.join(STRATEGIES)}")
        super().fit(X, y)
        strategy = STRATEGIES[self.strategy] if isinstance(self.strategy, str) else self.strategy
        x, codes = self._numbers(X, reset=False), np.searchsorted(self.classes_, column_or_1d(y))
        self.network_, self.log_ = adapt(
            super()._network(), x, codes, self.nominal_, strategy, seed=self.random_state or 0, context=self.context
        )
        return self

    def _network(self):
        return self.network_


def stored(network: Network, fmt: str) -> Network:
    """A copy whose layers' matrices went through a storage format and back (`compendium.formats`)."""
    made = deepcopy(network)
    for module in made.layers.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = formats.roundtrip(module.weight.data, fmt)
    return made
