"""Unlearning objectives, one signature: `(model, reference, forget, retain, ...) -> loss`, a scalar to minimise.

`forget` and `retain` are lists of `facts.Row` with one option each, the answer. Sequence log-probabilities are sums
over answer tokens. `reference` maps rows to the original model's log-probabilities (`Reference`); objectives that do
not compare with the original ignore it. Formulas are re-derived from the papers named; defaults follow the
open-unlearning conventions.
"""

import torch
import torch.nn.functional as F

from compendium.facts import Row, log_probs


class Reference:
    """The original model's answer log-probabilities, computed once: `reference(rows) -> (n,)`, nats, no gradient."""

    @torch.no_grad()
    def __init__(self, model, rows: list[Row], batch: int = 32):
        self.known = {}
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            total, _ = log_probs(model, part)
            self.known |= dict(zip(part, total[:, 0].cpu(), strict=True))

    def __call__(self, rows: list[Row]) -> torch.Tensor:
        return torch.stack([self.known[row] for row in rows])


def nll(model, rows: list[Row]) -> torch.Tensor:
    """Mean over rows of the answer's negative log-likelihood per token."""
    total, count = log_probs(model, rows)
    return -(total / count).mean()


def gradient_difference(model, reference, forget, retain, *, alpha: float = 1.0):
    """GradDiff: climb the loss on the forget set, descend it on the retain set (Liu et al. 2022)."""
    return -nll(model, forget) + alpha * nll(model, retain)


def npo(model, reference, forget, retain, *, beta: float = 0.1, alpha: float = 1.0):
    """Negative preference optimisation (Zhang et al. 2024, eq. 3) plus the retain loss.

    -(2 / beta) E log sigmoid(-beta log(p / p_ref)): gradient ascent that fades once p is well below p_ref.
    """
    total, _ = log_probs(model, forget)
    ratio = total[:, 0] - reference(forget).to(total.device)
    return -(2 / beta) * F.logsigmoid(-beta * ratio).mean() + alpha * nll(model, retain)
