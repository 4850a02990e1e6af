"""Which tokens earned the reward? Credit from counterfactuals: hide a span of the reasoning, score the answer again.

A completion that reasons its way to an answer is cut into spans: written calculations, and sentences. The answer's
log-probability is compared with and without each span in view; the *drop* is what the span contributes. Tokens of
spans with large drops get a larger share of the policy gradient (Khandoga et al. 2026, arXiv 2602.09331; the formulas
follow the authors' code, since the paper's text was not available to us).

    found = credit(model, tokenizer, prompts, completions)        # lists of token ids, unpadded
    losses.dapo(..., token_weights=found.weights)                 # (n, tokens), mean 1 over each completion

From drops to weights, per token of the reasoning: x = 0.2, plus drop / length inside a span; importance
I = 0.5 + 0.5 (x - min x) / (max x - min x), or 0.5 where x is flat; weight 0.5 + 1.5 I. Tokens from the answer's marker
on have weight 1.5. The weights of a completion are then divided by their mean, so that credit moves between tokens and
is neither made nor lost. A span whose removal *raises* the answer's probability, a distractor, is merely what scores
lowest; there is no other penalty.

`MODES` are the method and its controls. `inverted` and `random` are the authors', and differ from the method in range
as well as in order: `inverted` puts the reasoning below the answer, `random` is spread wider. `shuffled` gives the
same drops to other spans, and `reversed` turns the order round within the same range: only these two leave everything
but the order as it was. `vanilla` is weight 1.

What is ours, against the authors' code:

- A hidden span is hidden from attention, with all positions as they were; `placeholder` puts visible tokens there.
- The score is that of the answer's number alone, or of all tokens after the marker if no number follows it; never of
  padding.
- Calculations may have signs, parentheses, units, percent, thousands, LaTeX and GSM8K's <<...>>. A sentence that
  contains a calculation keeps the rest of its tokens, as one or two spans. Over `limit` spans, calculations come first.
- No special case for rules made of #, = or -, nor for text with many backslashes. Dropout is off while scoring.
- `random` and `shuffled` draw from a generator that you give; a shuffle of two spans or more is never the identity.
- Without a marker there is nothing to score: all weights are 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from compendium import packing, tokens
from compendium.policy_opt.regions import ANSWER, BASE, HIGH, LOW, Regions, regions

MODES = "counterfactual", "vanilla", "inverted", "random", "shuffled", "reversed"


class _Tree(NamedTuple):
    """One completion with its spans hidden in turn, packed into one row: prompt and completion once, then for every
    span a branch, the tokens that follow it. Numbers are places in the row."""

    row: packing.Packed  # trunk and branches
    predict: list[tuple[int, int, int]]  # place, the token it should predict, and whose score: 0 trunk, 1 first branch


def _tree(prompt: Sequence[int], completion: Sequence[int], region: Regions, placeholder: int | None) -> _Tree:
    n = len(prompt)
    first, last = (n + t for t in region.answer)  # answer tokens are predicted one place earlier
    row = [*prompt, *completion][: last - 1]
    whole, ids, positions, blocks = [*prompt, *completion], list(row), list(range(len(row))), [(0, len(row), 0)]
    predict = [(t - 1, whole[t], 0) for t in range(first, last)]
    for k, span in enumerate(region.spans, 1):
        start = len(ids)
        hidden = [] if placeholder is None else [placeholder] * (span.end - span.start)
        ids.extend([*hidden, *row[n + span.end :]])
        end = len(ids)
        positions.extend(range(len(row) - (end - start), len(row)))
        blocks.append((start, end, n + span.start))
        predict.extend((t - 1 - len(row) + end, whole[t], k) for t in range(first, last))
    return _Tree(packing.Packed(ids, positions, blocks), predict)


def _pack(trees: list[_Tree], dtype, device):
    """Tensors for one pass over trees: `(inputs, places, targets, cells)`.

    inputs: input_ids and position_ids (b, t), attention_mask (b, 1, t, t) additive. places (m,): flat indices whose
    hidden state predicts an answer token; targets (m,): that token; cells (m,): whose score it adds to, counting the
    scores of all trees in order.
    """
    length = max(len(tree.row.ids) for tree in trees)
    predict, cell = [], 0
    for r, tree in enumerate(trees):
        predict += [(r * length + place, target, cell + score) for place, target, score in tree.predict]
        cell += len(tree.row.blocks)
    inputs = packing.inputs([tree.row for tree in trees], dtype, device)
    return inputs, *torch.tensor(predict, device=device).T


def _scores(model, trees: list[_Tree]) -> Tensor:
    """Log-probability of the answer, nats, for each tree's trunk and branches in order: one flat tensor."""
    inputs, places, targets, cells = _pack(trees, model.dtype, model.device)
    hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[places]
    logp = tokens.readout(model, hidden).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    count = sum(len(tree.row.blocks) for tree in trees)
    return torch.zeros(count, device=logp.device).index_add(0, cells, logp)


@torch.no_grad()
def drops(
    model,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    parsed: Sequence[Regions],
    *,
    placeholder: int | None = None,
    budget: int = 2048,
) -> list[np.ndarray]:
    """How much log-probability, nats, the answer loses when each span is hidden: one array a completion, (spans,).

    prompts, completions: token ids, unpadded. placeholder: a token id to put in a span's place, in view, as the
    authors do with the padding token; None hides the span from attention. budget: tokens a forward pass; few suit a
    processor's cache, a GPU takes many more.

    Tokens before a span do not depend on it, so a completion's prompt and text are computed once, and for each span
    only what follows it, all in one row with a tree-shaped mask. Raises ValueError for a model whose attention cannot
    take one.
    """
    tokens.check_packs(model, "spans")
    found = [np.zeros(len(region.spans)) for region in parsed]
    trees = {
        i: _tree(prompts[i], completions[i], region, placeholder) for i, region in enumerate(parsed) if region.spans
    }
    order = sorted(trees, key=lambda i: len(trees[i].row.ids))  # like lengths together: little padding
    training = model.training
    model.eval()
    try:
        while order:
            size = max(1, budget // len(trees[order[-1]].row.ids))
            batch, order = order[-size:], order[:-size]
            scores = _scores(model, [trees[i] for i in batch]).double().cpu().numpy()
            for i in batch:
                own, scores = np.split(scores, [1 + len(parsed[i].spans)])
                found[i] = own[0] - own[1:]
    finally:
        model.train(training)
    return found


def importance(region: Regions, drops: np.ndarray) -> np.ndarray:
    """(reasoning,) importance of each token of the reasoning, between 0.5 and 1. drops: (spans,), nats."""
    x = np.full(region.reasoning, BASE)
    for span, drop in zip(region.spans, drops, strict=True):
        x[span.start : span.end] += drop / (span.end - span.start)
    spread = np.ptp(x) if len(x) else 0.0
    return np.full(len(x), 0.5) if spread == 0 else 0.5 + 0.5 * (x - x.min()) / spread


def weights(
    region: Regions, drops: np.ndarray, mode: str = "counterfactual", rng: np.random.Generator | None = None
) -> np.ndarray:
    """(length,) token weights of one completion, mean 1.

    mode: one of MODES. rng: for "random" and "shuffled". Raises ValueError for an unknown mode or a missing generator.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}: choose one of {', '.join(MODES)}")
    if mode in ("random", "shuffled") and rng is None:
        raise ValueError(f"mode {mode!r} needs rng, a numpy random generator")
    if mode == "vanilla" or region.answer is None:
        return np.ones(region.length)
    if mode == "shuffled":
        drops = _shuffled(drops, rng)
    values = importance(region, drops)
    if mode == "inverted" and len(values):
        values = values.max() - values  # reflected over the whole completion, whose least is the answer's 0
    elif mode == "reversed" and len(values):
        values = values.max() + values.min() - values
    elif mode == "random":
        values = rng.random(region.reasoning)
    made = np.full(region.length, ANSWER)
    made[: region.reasoning] = LOW + (HIGH - LOW) * values
    return made / made.mean()


def _shuffled(drops: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The drops in another order, drawn from all orders but the present one."""
    order = np.arange(len(drops))
    while len(drops) > 1 and (order == np.arange(len(drops))).all():
        order = rng.permutation(len(drops))
    return drops[order]


class Credit(NamedTuple):
    """Token weights of completions, and where they come from."""

    weights: Tensor  # (n, tokens) float32, 1 after the end of a completion
    regions: list[Regions]
    drops: list[np.ndarray]  # (spans,) nats; below 0: a distractor


def credit(
    model,
    tokenizer,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    mode: str = "counterfactual",
    rng: np.random.Generator | None = None,
    placeholder: int | None = None,
    budget: int = 2048,
    **spans,
) -> Credit:
    """Token weights for completions, as the present policy sees them.

    prompts, completions: token ids, unpadded, one prompt a completion. spans: options of `regions`; other arguments as
    for `weights` and `drops`. "vanilla" and "random" need no forward pass, and report drops of 0. Equal completions of
    one prompt are scored once.
    """
    keys = [(tuple(p), tuple(c)) for p, c in zip(prompts, completions, strict=True)]
    unique = list(dict.fromkeys(keys))
    parsed = {key: regions(tokenizer, key[1], **spans) for key in unique}
    if mode in ("vanilla", "random"):
        lost = {key: np.zeros(len(parsed[key].spans)) for key in unique}
    else:
        measured = drops(
            model,
            [p for p, _ in unique],
            [c for _, c in unique],
            list(parsed.values()),
            placeholder=placeholder,
            budget=budget,
        )
        lost = dict(zip(unique, measured, strict=True))
    made = torch.ones(len(keys), max(map(len, completions), default=0), device=model.device)
    for row, key in zip(made, keys, strict=True):
        own = weights(parsed[key], lost[key], mode, rng)
        row[: len(own)] = torch.from_numpy(own).to(made)
    return Credit(made, [parsed[key] for key in keys], [lost[key] for key in keys])
