"""Tables from nowhere: random classification problems from random mechanisms. What a prior-fitted network learns.

A network trained to predict held-out rows of such tables approximates the posterior prediction under this prior
(Mueller et al. 2022, arXiv 2112.10510; TabPFN, Hollmann et al. 2023, arXiv 2207.01848). What it can know about real
tables is what is written here, so read this file as its beliefs. Three families of mechanisms:

| family | columns | class |
|---|---|---|
| `network` | nodes of a random, sparse, noisy multi-layer perceptron, in any layer | from other nodes of it |
| `trees` | correlated inputs | from sums of random oblivious trees over them |
| `clusters` | a Gaussian around the row's cluster | the class that owns the cluster |

A network's nodes can be causes or effects of the class, as in a structural causal model; in half of these tables the
columns are its inputs and the class is from its last layer. Scores become classes by cutting one score at random
quantiles (so that classes are ordered and may be rare) or by the largest of several. Then columns are warped, cut into
levels, named (nominal codes without order), replaced by noise, and emptied here and there.

    tables = prior.sample(np.random.default_rng(0), tables=16, rows=256)
    tables[0].x, tables[0].nominal, tables[0].y

Tables are drawn together, as tensors with a leading axis of tables; only the sizes are drawn one by one. The numbers
below are our own choices: some were compared in short runs, most follow what small real tables look like.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

WIDTH = 64  # most columns of a table, inputs of a mechanism, and nodes of a layer
LAYERS = 3  # hidden layers of a random network
MOST_CLASSES = 10
FAMILIES = {"network": 0.5, "trees": 0.3, "clusters": 0.2}  # share of tables
ACTIVATIONS = (
    lambda x: x,
    torch.tanh,
    torch.relu,
    lambda x: x.abs(),
    lambda x: torch.sin(2 * x),
    lambda x: x.square().clamp(max=9),
    lambda x: (x > 0).float(),
)


class Table(NamedTuple):
    """One classification problem."""

    x: np.ndarray  # (rows, columns) float32; codes 0, 1, ... in nominal columns; nan: missing
    nominal: np.ndarray  # (columns,) bool
    y: np.ndarray  # (rows,) int64: classes 0, 1, ...; one of them may have no row


class Mechanism(NamedTuple):
    """What a family returns, for all tables at once."""

    columns: Tensor  # (tables, rows, WIDTH)
    scores: Tensor  # (tables, rows, MOST_CLASSES)


def standardise(x: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over rows, the next to last axis; constant columns become 0."""
    x = x - x.mean(-2, keepdim=True)
    return x / x.square().mean(-2, keepdim=True).sqrt().clamp(min=1e-4)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Columns by number: x (tables, rows, nodes), index (tables, k) -> (tables, rows, k)."""
    return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))


class _Draw:
    """Random tensors of one generator; `log` is uniform in the logarithm."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def uniform(self, *shape) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def log(self, low: float, high: float, *shape) -> Tensor:
        return low * (high / low) ** self.uniform(*shape)

    def chance(self, p, *shape) -> Tensor:
        return self.uniform(*shape) < p

    def below(self, high, *shape) -> Tensor:
        """Integers from 0 to high - 1; high may be a tensor."""
        return (self.uniform(*shape) * high).long()

    def order(self, *shape) -> Tensor:
        """Random permutations along the last axis."""
        return self.uniform(*shape).argsort(-1)


def inputs(draw: _Draw, tables: int, rows: int) -> Tensor:
    """(tables, rows, WIDTH): independent, or one factor model a table, with heavy tails or groups of rows in some."""
    x = draw.normal(tables, rows, WIDTH)
    tails = x / draw.uniform(tables, rows, 1).clamp(min=0.02).sqrt()
    flat = torch.erf(x / 2**0.5)  # uniform
    kind = draw.uniform(tables, 1, 1)
    x = torch.where(kind < 0.1, tails, torch.where(kind < 0.3, flat, x))
    mixing = draw.normal(tables, WIDTH, WIDTH) * draw.chance(draw.log(0.02, 0.5, tables, 1, 1), tables, WIDTH, WIDTH)
    correlated = standardise(x) + draw.log(0.1, 2.0, tables, 1, 1) * standardise(x @ mixing)
    x = torch.where(draw.chance(0.7, tables, 1, 1), correlated, x)
    groups = 2 + draw.below(6, tables, rows)
    centres = draw.normal(tables, 8, WIDTH) * draw.log(0.3, 3.0, tables, 1, 1)
    grouped = x + centres.gather(1, groups[..., None].expand(-1, -1, WIDTH))
    return standardise(torch.where(draw.chance(0.25, tables, 1, 1), grouped, x))


def network(draw: _Draw, tables: int, rows: int, wide: Tensor) -> Mechanism:
    """Nodes of a random multi-layer perceptron. wide: (tables,) how many columns are wanted.

    Some parents matter much more than others, and functions are linear to a random degree: without that, two hundred
    rows could not tell most tables from noise.
    """
    forward = draw.chance(0.5, tables)
    nodes = ((wide + MOST_CLASSES) / LAYERS * (1 + draw.uniform(tables))).ceil().clamp(max=WIDTH).long()
    active = torch.arange(WIDTH) < torch.where(forward, wide, nodes)[:, None]
    hidden = inputs(draw, tables, rows) * active[:, None]
    own = draw.below(len(ACTIVATIONS), tables, 1)  # of the whole table, in half of the tables
    mixed = draw.chance(0.5, tables, 1)
    straight = torch.where(draw.chance(0.5, tables, 1, 1), draw.log(0.3, 3.0, tables, 1, 1), 0.0)
    noise = torch.where(draw.chance(0.5, tables, 1, 1), draw.log(0.01, 0.5, tables, 1, 1), 0.0)
    uneven = draw.uniform(tables, 1, 1) * 1.5
    layers = [hidden]
    for _ in range(LAYERS):
        matters = (uneven * draw.normal(tables, WIDTH, 1)).exp() * active[..., None]
        before = standardise(hidden @ (draw.normal(tables, WIDTH, WIDTH) * matters))
        chosen = torch.where(mixed, draw.below(len(ACTIVATIONS), tables, WIDTH), own)
        shifted = before + 0.5 * draw.normal(tables, 1, WIDTH)
        after = torch.zeros_like(before)
        for k, activation in enumerate(ACTIVATIONS):
            after = torch.where((chosen == k)[:, None], activation(shifted), after)
        hidden = standardise(standardise(after) + straight * before) + noise * draw.normal(tables, rows, WIDTH)
        hidden = hidden * active[:, None]
        layers.append(hidden)
    # As a causal model: columns and class are any nodes of it.
    every = torch.cat(layers[1:], 2)
    order = draw.uniform(tables, every.shape[2]).masked_fill(~active.repeat(1, LAYERS), 2.0).argsort(1)
    scores, columns = _pick(every, order[:, :MOST_CLASSES]), _pick(every, order[:, MOST_CLASSES : MOST_CLASSES + WIDTH])
    # As a function: columns are its inputs; how deep the class lies differs, from linear to the last layer.
    matters = (uneven * draw.normal(tables, WIDTH, 1)).exp() * active[..., None]
    linear = standardise(layers[0] @ (draw.normal(tables, WIDTH, MOST_CLASSES) * matters))
    depth = torch.multinomial(torch.tensor([0.3, 0.35, 0.2, 0.15]), tables, True, generator=draw.generator)
    of_layer = torch.stack([linear, *(layer[..., :MOST_CLASSES] for layer in layers[1:])])
    # Narrow tables have fewer than ten nodes in a layer: the scores that lack one are linear.
    of_layer = torch.where(active[None, :, None, :MOST_CLASSES], of_layer, linear)
    forward = forward[:, None, None]
    return Mechanism(
        torch.where(forward, layers[0], columns), torch.where(forward, of_layer[depth, torch.arange(tables)], scores)
    )


def trees(draw: _Draw, tables: int, rows: int, wide: Tensor) -> Mechanism:
    """Inputs, and sums of oblivious trees: every level of a tree asks one question of all rows."""
    x = inputs(draw, tables, rows)
    many, deep = 12, 5
    # A power of a uniform number favours the first columns: some are asked about more often.
    favour = draw.uniform(tables, MOST_CLASSES * many * deep) ** draw.log(1, 4, tables, 1)
    asked = (wide[:, None] * favour).long()
    answers = _pick(x, asked) > draw.normal(tables, 1, MOST_CLASSES * many * deep)
    depth = 1 + draw.below(deep, tables, 1, 1, 1, 1)
    bits = answers.view(tables, rows, MOST_CLASSES, many, deep) & (torch.arange(deep) < depth)
    leaf = (bits * 2 ** torch.arange(deep)).sum(-1) + 2**deep * torch.arange(many)  # (tables, rows, classes, trees)
    count = draw.log(1, many + 1, tables, 1, 1).long()
    values = draw.normal(tables, MOST_CLASSES, many, 2**deep) * (torch.arange(many) < count)[..., None]
    found = values.flatten(2).gather(2, leaf.permute(0, 2, 1, 3).flatten(2))
    return Mechanism(x, standardise(found.view(tables, MOST_CLASSES, rows, many).sum(-1).transpose(1, 2)))


def clusters(draw: _Draw, tables: int, rows: int, wide: Tensor, classes: Tensor) -> Mechanism:
    """Columns around the centre of a row's cluster; the scores say which class owns it. classes: (tables,)."""
    most = 3 * MOST_CLASSES
    count = classes * (1 + draw.below(3, tables))
    sizes = draw.log(0.2, 1.0, tables, most) * (torch.arange(most) < count[:, None])
    cluster = torch.multinomial(sizes, rows, replacement=True, generator=draw.generator)
    relevant = draw.chance(draw.log(0.1, 1.0, tables, 1, 1), tables, 1, WIDTH)
    informative = (relevant & (torch.arange(WIDTH) < wide[:, None, None])).sum(2, keepdim=True).clamp(min=1)
    apart = draw.log(1.0, 7.0, tables, 1, 1) / informative.sqrt()
    centres = draw.normal(tables, most, WIDTH) * apart * relevant
    spread = torch.where(draw.chance(0.5, tables, 1, 1), draw.log(0.5, 2.0, tables, most, WIDTH), 1.0)
    of = cluster[..., None].expand(-1, -1, WIDTH)
    x = centres.gather(1, of) + spread.gather(1, of) * inputs(draw, tables, rows)
    owner = cluster % classes[:, None]
    return Mechanism(standardise(x), 4.0 * torch.nn.functional.one_hot(owner, MOST_CLASSES).float())


def label(draw: _Draw, scores: Tensor, classes: Tensor, *, by_quantile: Tensor) -> Tensor:
    """(tables, rows) classes from scores (tables, rows, MOST_CLASSES) with noise.

    by_quantile: (tables,) bool: cut the first score at random quantiles; else take the largest of the first `classes`.
    """
    tables, rows, _ = scores.shape
    temperature = torch.where(draw.chance(0.6, tables, 1, 1), draw.log(0.02, 0.7, tables, 1, 1), 1e-3)
    gumbel = -(-draw.uniform(*scores.shape).clamp(min=1e-9).log()).log()
    noisy = scores + temperature * gumbel
    exists = torch.arange(MOST_CLASSES) < classes[:, None]
    bias = draw.normal(tables, 1, MOST_CLASSES) * draw.log(0.05, 1.0, tables, 1, 1)
    largest = (noisy + bias).masked_fill(~exists[:, None], -torch.inf).argmax(-1)
    # Gamma variates of shape a, normalised, are Dirichlet(a): class shares from equal to very unequal.
    shape = draw.log(0.7, 20.0, tables, 1).expand(-1, MOST_CLASSES)
    share = (torch._standard_gamma(shape, draw.generator) + 0.02 * shape) * exists
    cuts = (share / share.sum(1, keepdim=True)).cumsum(1)[:, :-1]
    rank = noisy[..., 0].argsort(1).argsort(1) / rows
    by_cut = (rank[..., None] > cuts[:, None]).sum(-1).minimum(classes[:, None] - 1)
    return torch.where(by_quantile[:, None], by_cut, largest)


def dress(draw: _Draw, x: Tensor) -> tuple[Tensor, Tensor]:
    """Make columns look like a spreadsheet's: (x, nominal). x: (tables, rows, WIDTH), standardised."""
    tables, rows, _ = x.shape
    share = lambda chance, high: draw.chance(chance, tables, 1, 1) * high * draw.uniform(tables, 1, 1)
    noise = draw.chance(share(0.5, 0.5), tables, 1, WIDTH)
    shuffled = x.gather(1, draw.uniform(tables, rows, WIDTH).argsort(1))
    x = torch.where(noise, shuffled, x)

    kind, strength = draw.uniform(tables, 1, WIDTH), draw.log(0.3, 1.5, tables, 1, WIDTH)
    x = torch.where(kind < 0.25, (strength * x.clamp(-6, 6)).exp(), x)
    x = torch.where(kind > 0.9, x.sign() * x.abs() ** (1 + strength), x)
    x = standardise(x)

    levelled = draw.chance(share(0.6, 1.2), tables, 1, WIDTH)
    levels = torch.where(draw.chance(0.3, tables, 1, WIDTH), 2, 2 + draw.log(1, 10, tables, 1, WIDTH).long())
    cuts = draw.normal(tables, 12, WIDTH).masked_fill(torch.arange(1, 13)[:, None] >= levels, torch.inf)
    code = sum((x > cuts[:, k : k + 1]).float() for k in range(12))
    nominal = levelled & draw.chance(share(0.7, 1.4), tables, 1, WIDTH)
    names = draw.uniform(tables, 13, WIDTH).argsort(1).float()
    renamed = names.gather(1, code.long())
    x = torch.where(nominal, renamed, torch.where(levelled, code, x))

    rate = draw.log(0.01, 0.5, tables, 1, WIDTH) * draw.chance(share(0.3, 1.0), tables, 1, WIDTH)
    by_value = draw.chance(0.3, tables, 1, 1) & (x > 0)  # larger values are missing more often
    gone = draw.chance(rate * (1 + by_value.float()), tables, rows, WIDTH)
    return x.masked_fill(gone, torch.nan), nominal[:, 0]


def sample(
    rng: np.random.Generator,
    *,
    tables: int,
    rows: int,
    families: dict[str, float] | None = None,
    classes: int | None = None,
) -> list[Table]:
    """Draw classification problems. families: shares of FAMILIES to use instead; classes: fix their number.

    Columns (2 to 64), classes (2 to 10), mechanism and dress are drawn for each table. Raises ValueError for an
    unknown family or fewer than 2 rows.
    """
    families = FAMILIES if families is None else families
    if unknown := set(families) - set(FAMILIES):
        raise ValueError(f"unknown family {min(unknown)!r}: choose from {', '.join(FAMILIES)}")
    if rows < 2:
        raise ValueError(f"rows must be at least 2, not {rows}")
    draw = _Draw(int(rng.integers(2**62)))
    wide = draw.log(2, WIDTH + 1, tables).long()
    several = 3 + draw.log(1, MOST_CLASSES - 1, tables).long() - 1
    count = torch.where(draw.chance(0.55, tables), 2, several) if classes is None else torch.full((tables,), classes)
    family = torch.multinomial(
        torch.tensor(list(families.values()), dtype=torch.float), tables, replacement=True, generator=draw.generator
    )
    x, scores = torch.empty(tables, rows, WIDTH), torch.empty(tables, rows, MOST_CLASSES)
    clustered = torch.zeros(tables, dtype=torch.bool)
    for k, name in enumerate(families):
        chosen = (family == k).nonzero()[:, 0]
        if not len(chosen):
            continue
        if name == "clusters":
            x[chosen], scores[chosen] = clusters(draw, len(chosen), rows, wide[chosen], count[chosen])
            clustered[chosen] = True
        else:
            make = {"network": network, "trees": trees}[name]
            x[chosen], scores[chosen] = make(draw, len(chosen), rows, wide[chosen])
    by_quantile = draw.chance(torch.where(count == 2, 0.8, 0.4), tables) & ~clustered
    y = label(draw, scores, count, by_quantile=by_quantile)
    x, nominal = dress(draw, standardise(x))
    return [Table(x[t, :, : wide[t]].numpy(), nominal[t, : wide[t]].numpy(), y[t].numpy()) for t in range(tables)]
