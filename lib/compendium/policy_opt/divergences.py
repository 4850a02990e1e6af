"""What holds the policy near the reference: divergences of one signature, `(logp, logq) -> per-token`.

logp is the policy's, logq the reference's natural log-probability of the token that was sampled, with any shape; the
result has that shape. Write l, l0 for them and p, q for their exponentials:

| name | D | gradient over grad l |
|---|---|---|
| `k1` | l - l0 | 1: the same push on every token, so no restoring force |
| `k3` | exp(l0 - l) - (l0 - l) - 1 | 1 - q / p |
| `log_l2` | (l - l0)^2 | 2 (l - l0) |
| `prob_l2` | (p - q)^2 | 2 (p - q) p |

k1 and k3 are the unbiased estimators of KL(policy || reference) that Schulman (2020) describes; k3 is what GRPO adds.
`log_l2` and `prob_l2` come from Group-Based Mirror Policy Optimisation (arXiv 2602.04380), with no factor 1/2.
`mirror.divergence` is its learned one. ProbL2 is bounded by 1 and hardly touches tokens that both find unlikely; k3
and log-L2 are unbounded there.

A Bregman divergence of distributions sums over the vocabulary. Only sampled tokens reach the functions above, so what
the policy minimises in expectation is sum_a p_a (p_a - q_a)^2, not sum_a (p_a - q_a)^2. `over_vocabulary` gives the
latter, from log-probabilities with the vocabulary on the last axis:

    divergence = lambda *_: prob_l2_full(all_logp, all_logq)        # as an argument of losses.policy_loss
"""

import torch
from torch import Tensor


def none(logp: Tensor, logq: Tensor) -> Tensor:
    """Zero: the control that says what taking the KL away does by itself."""
    return torch.zeros_like(logp)


def k1(logp: Tensor, logq: Tensor) -> Tensor:
    """Log-ratio: for monitoring; as a penalty its gradient averages to zero."""
    return logp - logq


def k3(logp: Tensor, logq: Tensor) -> Tensor:
    """Log-ratio with a control variate: never negative, and its gradient restores."""
    gap = logq - logp
    return torch.expm1(gap) - gap


def log_l2(logp: Tensor, logq: Tensor) -> Tensor:
    """Squared difference of log-probabilities."""
    return (logp - logq) ** 2


def prob_l2(logp: Tensor, logq: Tensor) -> Tensor:
    """Squared difference of the sampled token's probabilities."""
    return (logp.exp() - logq.exp()) ** 2


def over_vocabulary(divergence, logp: Tensor, logq: Tensor) -> Tensor:
    """The divergence of whole distributions, (..., vocabulary) -> (...), for one that is a sum over tokens: ProbL2
    and mirror maps. (KL is not the sum of k3 over tokens.)"""
    return divergence(logp, logq).sum(-1)


def prob_l2_full(logp: Tensor, logq: Tensor) -> Tensor:
    """Squared Euclidean distance of whole distributions, (..., vocabulary) -> (...)."""
    return over_vocabulary(prob_l2, logp, logq)


DIVERGENCES = {"none": none, "k1": k1, "k3": k3, "log_l2": log_l2, "prob_l2": prob_l2}
