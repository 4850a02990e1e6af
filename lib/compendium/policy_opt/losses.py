"""The GRPO family of losses, as pure functions of per-token log-probabilities.

The policy writes a group of completions for one prompt. A completion's advantage is its reward against the group's
mean; every token is pushed up or down by it, as far as a clipped probability ratio allows, and a divergence holds the
policy near a reference. One function, `policy_loss`, does this; the family differs in four settings:

| loss | ratio | clip below, above | mean over | advantages | paper |
|---|---|---|---|---|---|
| `grpo` | token | 0.2, 0.2 | tokens of a row, then rows | over deviation | Shao et al., arXiv 2402.03300 |
| `dapo` | token | 0.2, 0.28 | all tokens of a step | over deviation | Yu et al., arXiv 2503.14476 |
| `dr_grpo` | token | 0.2, 0.2 | rows x longest length allowed | as they are | Liu et al., arXiv 2503.20783 |
| `gspo` | whole row | 3e-4, 4e-4 | tokens of a row, then rows | over deviation | Zheng et al., arXiv 2507.18071 |

Per token t of a row with advantage A, weight w and ratio r:

    loss_t = -w_t min(r_t A, clip(r_t, 1 - low, 1 + high) A) + coefficient * D_t

The divergence D_t (`divergences`, `mirror`) is added to the token's loss *before* the mean is taken, so that its
strength against the reward does not depend on lengths or on gradient accumulation. Token weights (`credit`) scale the
reward's part alone unless `weigh_divergence`: what a token contributed says nothing about how far it may drift.

DAPO's two other pieces are `dynamic_sampling` (prompts whose rewards are all equal teach nothing: draw others) and,
for completions that were cut off, `overlong_mask` and `overlong_penalty`.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, group: int, *, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """Rewards against their group's mean, and over its standard deviation (n - 1 in the denominator) plus `eps`.

    rewards: (groups * group,), completions of a prompt next to each other; nan: no reward could be given, so the
    completion is left out of the mean and gets advantage 0. scale=False leaves the deviation in (Dr. GRPO). A group
    of one, or of equal rewards, has advantages of exactly 0.
    Raises ValueError for an infinite reward or a number of rewards that is no multiple of `group`.
    """
    if group < 1 or rewards.dim() != 1 or len(rewards) % group:
        raise ValueError(f"rewards of shape {tuple(rewards.shape)} cannot be cut into groups of {group}")
    if rewards.isinf().any():
        raise ValueError(f"completion {int(rewards.isinf().nonzero()[0])} has an infinite reward")
    table = rewards.view(-1, group)
    known = ~table.isnan()
    count = known.sum(1, keepdim=True)
    filled = table.masked_fill(~known, 0.0)
    deviation = (filled - filled.sum(1, keepdim=True) / count.clamp(min=1)).masked_fill(~known, 0.0)
    # Equal rewards leave rounding errors behind, which division by a tiny deviation would turn into a signal.
    deviation = deviation.masked_fill(~varied(table)[:, None], 0.0)
    if scale:
        deviation = deviation / ((deviation**2).sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt().add(eps)
    return deviation.flatten()


def varied(table: Tensor) -> Tensor:
    """(groups,) bool: whether a group's rewards, the last axis, differ; nan counts as no reward."""
    low, high = table.nan_to_num(nan=torch.inf).amin(-1), table.nan_to_num(nan=-torch.inf).amax(-1)
    return high > low


def sequence_mean(loss: Tensor, mask: Tensor) -> Tensor:
    """Mean over a row's tokens, then over rows (an empty row counts, as 0): a long row's tokens weigh less."""
    return (loss.sum(1) / mask.sum(1).clamp(min=1)).mean()


def token_mean(loss: Tensor, mask: Tensor, total: float | Tensor | None = None) -> Tensor:
    """Mean over all tokens. total: their number in the whole optimiser step, when this is one micro-batch of it, so
    that the micro-batches' losses add up to the loss of the step."""
    return loss.sum() / (mask.sum().clamp(min=1) if total is None else total)


def fixed_mean(loss: Tensor, mask: Tensor, length: int) -> Tensor:
    """Sum over tokens, over rows x the longest length allowed: one token counts the same in every row and step."""
    return loss.sum() / (len(loss) * length)


def policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    ref_logp: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    token_weights: Tensor | None = None,
    *,
    ratio: str = "token",
    low: float = 0.2,
    high: float = 0.2,
    ceiling: float | None = None,
    aggregate: Callable[[Tensor, Tensor], Tensor] = sequence_mean,
    divergence: Callable[[Tensor, Tensor], Tensor] | None = None,
    coefficient: float = 0.0,
    weigh_divergence: bool = False,
) -> Tensor:
    """The loss to minimise, a scalar.

    logp, old_logp, ref_logp: (rows, tokens) natural log-probability of each sampled token under the policy, the policy
    that sampled it, and the reference (which may be None without a divergence). advantages: (rows,) or (rows, tokens).
    mask: (rows, tokens), 1 for real tokens; what the tensors hold elsewhere, even nan, has no effect.
    token_weights: (rows, tokens), constants, or None for ones.

    ratio: "token", or "sequence", the geometric mean of a row's token ratios. Its gradient is spread over the tokens
    through their own log-probabilities, which changes nothing while weights are equal and makes unequal ones count.
    low, high: the ratio is clipped to [1 - low, 1 + high]. ceiling: bounds the unclipped ratio too, for negative
    advantages. divergence: (logp, ref_logp) -> per-token; one that needs more than sampled tokens closes over it.
    Raises ValueError for shapes that do not fit, an unknown ratio, or a divergence without reference.
    """
    if ratio not in ("token", "sequence"):
        raise ValueError(f"unknown ratio {ratio!r}: say 'token' or 'sequence'")
    if divergence is not None and ref_logp is None:
        raise ValueError("a divergence needs ref_logp, the reference's log-probabilities")
    given = dict(old_logp=old_logp, ref_logp=ref_logp, mask=mask, token_weights=token_weights)
    for name, tensor in given.items():
        if tensor is not None and tensor.shape != logp.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, logp {tuple(logp.shape)}: they must agree")
    if advantages.shape not in (logp.shape[:1], logp.shape):
        raise ValueError(f"advantages of shape {tuple(advantages.shape)} fit neither rows nor tokens of logp")
    mask = mask.bool()
    advantages = advantages[:, None] if advantages.dim() == 1 else advantages.masked_fill(~mask, 0.0)
    # Padding goes before anything is exponentiated: inf * 0 would put nan into the gradient of real tokens.
    logp, old_logp = logp.masked_fill(~mask, 0.0), old_logp.masked_fill(~mask, 0.0)
    log_ratio = logp - old_logp
    if ratio == "sequence":
        mean = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        log_ratio = mean.detach() + logp - logp.detach()
    r = log_ratio.exp()
    free = r if ceiling is None else r.clamp(max=ceiling)
    loss = -torch.minimum(free * advantages, r.clamp(1 - low, 1 + high) * advantages)
    weights = 1.0 if token_weights is None else token_weights.masked_fill(~mask, 0.0)
    loss = loss * weights
    if divergence is not None:
        drift = coefficient * divergence(logp, ref_logp.masked_fill(~mask, 0.0))
        loss = loss + (drift * weights if weigh_divergence else drift)
    return aggregate(loss.masked_fill(~mask, 0.0), mask)


def grpo(*tensors, **options) -> Tensor:
    """Group relative policy optimisation. Arguments as for `policy_loss`."""
    return policy_loss(*tensors, **options)


def dapo(*tensors, total: float | Tensor | None = None, high: float = 0.28, **options) -> Tensor:
    """DAPO: room to raise unlikely tokens (clip-higher), and every token of the step counts the same.

    total: tokens in the optimiser step, as `token_mean` takes it. Other arguments as for `policy_loss`.
    """
    return policy_loss(*tensors, high=high, aggregate=partial(token_mean, total=total), **options)


def dr_grpo(*tensors, length: int, **options) -> Tensor:
    """Dr. GRPO: no normalisation by a row's own length, which favours long wrong answers. Pass advantages made with
    scale=False. length: the longest completion allowed, tokens. Other arguments as for `policy_loss`."""
    return policy_loss(*tensors, aggregate=partial(fixed_mean, length=length), **options)


def gspo(*tensors, low: float = 3e-4, high: float = 4e-4, **options) -> Tensor:
    """GSPO: one ratio for the whole completion, as one reward is given to it. Arguments as for `policy_loss`."""
    return policy_loss(*tensors, ratio="sequence", low=low, high=high, **options)


LOSSES = {"grpo": grpo, "dapo": dapo, "dr_grpo": dr_grpo, "gspo": gspo}


def dynamic_sampling(draw: Callable[[int], list], wanted: int, *, rounds: int = 10) -> tuple[list, int]:
    """Groups whose rewards differ, and how many groups were drawn to get them.

    draw(n): n new groups, each a tuple that begins with its rewards, a (group,) tensor. Draws again for the groups
    that are missing, at most `rounds` times, so fewer than `wanted` may come back: near 0 or 1 accuracy few groups are
    of use, and a run must go on.
    """
    kept, drawn = [], 0
    for _ in range(rounds):
        if len(kept) >= wanted:
            break
        groups = draw(wanted - len(kept))
        drawn += len(groups)
        kept += [group for group in groups if varied(group[0])]
    return kept[:wanted], drawn


def overlong_mask(mask: Tensor, finished: Tensor) -> Tensor:
    """The mask with the rows that were cut off taken out. mask: (rows, tokens); finished: (rows,) bool."""
    return mask * finished[:, None].to(mask.dtype)


def overlong_penalty(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """To be added to the reward: 0 up to `buffer` tokens short of `limit`, from there linearly to -1 at `limit`, and
    -1 beyond (Yu et al. 2025, eq. 13). lengths: (rows,) tokens."""
    if not 0 < buffer <= limit:
        raise ValueError(f"buffer must lie between 1 and the limit of {limit}, not {buffer}")
    return ((limit - buffer - lengths) / buffer).clamp(-1.0, 0.0)
