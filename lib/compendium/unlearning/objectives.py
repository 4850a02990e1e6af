"""Unlearning objectives, one signature: `(model, reference, forget, retain, ...) -> loss`, a scalar to minimise.

`forget` and `retain` are lists of `facts.Row` with one option each, the answer. Sequence log-probabilities are sums
over answer tokens. `reference` is the original model (`Reference`); objectives that do not compare with it ignore it.
Formulas are re-derived from the papers named; defaults follow the open-unlearning conventions.

| objective | forget term | paper |
|---|---|---|
| ascent | -NLL | gradient ascent, no retain term |
| gradient_difference | -NLL | Liu et al. 2022 |
| npo | -(2 / beta) log sigmoid(-beta log(p / p_ref)) | Zhang et al. 2024, eq. 3 |
| simnpo | -(2 / beta) log sigmoid(beta (NLL / tokens - delta)) | Fan et al. 2024 |
| rmu | distance of layer l's stream to c times a random direction | Li et al. 2024 |
| learn | NLL: the task vector to be subtracted | Ilharco et al. 2023 |

All but `ascent`, `rmu` and `learn` add alpha times a retain loss: `nll` (the default) or `kl`, the divergence from the
original model's answers.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from compendium import facts, packing, tokens
from compendium.facts import Row

SEQUENCE = 256  # tokens that rows are laid end to end in; the cost of attention grows with its square


class Reference:
    """The original model: a frozen copy. `reference(rows) -> (n,)`, answer log-probabilities in nats, no gradient."""

    def __init__(self, model):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.known = {}

    @torch.no_grad()
    def __call__(self, rows: list[Row], batch: int = 32) -> Tensor:
        new = [row for row in dict.fromkeys(rows) if row not in self.known]
        for start in range(0, len(new), batch):
            part = new[start : start + batch]
            self.known |= dict(zip(part, log_probs(self.model, part)[0], strict=True))
        return torch.stack([self.known[row] for row in rows])


def log_probs(model, rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Log-probability of each row's one answer, nats, and its number of tokens: two tensors (rows,); differentiable.

    As `facts.log_probs`, but with rows laid end to end, each seeing itself only: training rows come unsorted, and
    padding each to the longest wastes what scoring, which sorts them, does not. Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("there are no rows to learn from: the set of facts to forget or to keep is empty")
    tokens.check_packs(model, "rows", max(map(len, rows), default=0))
    sequences, used = [[]], 0
    for i, row in enumerate(rows):
        if sequences[-1] and used + len(row) > SEQUENCE:
            sequences.append([])
            used = 0
        sequences[-1].append(i)
        used += len(row)
    width = max(sum(len(rows[i]) for i in members) for members in sequences)
    packed, predict = [], []  # (flat index, target, row)
    for s, members in enumerate(sequences):
        ids, position, blocks = [], [], []
        for i in members:
            prompt, (answer,) = rows[i].prompt, rows[i].options
            first = s * width + len(ids) + len(prompt) - 1
            predict += [(first + k, token, i) for k, token in enumerate(answer)]
            blocks.append((len(ids), len(ids) + len(rows[i]), 0))
            ids += [*prompt, *answer]
            position += range(len(rows[i]))
        packed.append(packing.Packed(ids, position, blocks))
    inputs = packing.inputs(packed, model.dtype, model.device)
    positions, targets, of = torch.tensor(predict, device=model.device).T
    logs = _next_tokens(model, inputs, positions)
    token = logs.gather(1, targets[:, None])[:, 0]
    return torch.zeros(len(rows), device=token.device).index_add(0, of, token), of.bincount(minlength=len(rows))


def nll(model, rows: list[Row]) -> Tensor:
    """Mean over rows of the answer's negative log-likelihood per token."""
    total, count = log_probs(model, rows)
    return -(total / count).mean()


def kl(model, reference: Reference, rows: list[Row]) -> Tensor:
    """Mean over answer tokens of KL(original || model), nats."""
    tokens.check_packs(model, "rows", max(map(len, rows), default=0))
    inputs, positions, *_ = facts.pack(rows, model.dtype, model.device)
    with torch.no_grad():
        before = _next_tokens(reference.model, inputs, positions)
    return (before.exp() * (before - _next_tokens(model, inputs, positions))).sum(-1).mean()


def _next_tokens(model, inputs, positions) -> Tensor:
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[positions]
    return tokens.readout(model, hidden).log_softmax(-1)


RETAIN = {"nll": lambda model, reference, rows: nll(model, rows), "kl": kl}


def ascent(model, reference, forget, retain) -> Tensor:
    """Gradient ascent on the answers to forget, and nothing else."""
    return -nll(model, forget)


def learn(model, reference, forget, retain) -> Tensor:
    """Descent on the answers to forget: it makes the task vector that negation then subtracts."""
    return nll(model, forget)


def _terms(model, reference, forget, retain, keep) -> tuple[Tensor, Tensor, Tensor]:
    """Forget rows' log-probabilities and numbers of tokens, and the retain loss; one pass where both are of a kind."""
    if keep != "nll":
        return *log_probs(model, forget), RETAIN[keep](model, reference, retain)
    total, count = log_probs(model, [*forget, *retain])
    n = len(forget)
    return total[:n], count[:n], -(total[n:] / count[n:]).mean()


def gradient_difference(model, reference, forget, retain, *, alpha: float = 1.0, keep: str = "nll") -> Tensor:
    """GradDiff: climb the loss on the forget set, descend it on the retain set."""
    total, count, kept = _terms(model, reference, forget, retain, keep)
    return (total / count).mean() + alpha * kept


def npo(model, reference, forget, retain, *, beta: float = 0.1, alpha: float = 1.0, keep: str = "nll") -> Tensor:
    """Negative preference optimisation: gradient ascent that fades once p is well below the original's."""
    total, _, kept = _terms(model, reference, forget, retain, keep)
    return -(2 / beta) * F.logsigmoid(-beta * (total - reference(forget))).mean() + alpha * kept


def simnpo(
    model,
    reference,
    forget,
    retain,
    *,
    beta: float = 4.5,
    delta: float = 0.0,
    gamma: float = 0.125,
    alpha: float = 1.0,
    keep: str = "nll",
) -> Tensor:
    """NPO without a reference: the length-normalised NLL takes the ratio's place. gamma weighs the forget term."""
    total, count, kept = _terms(model, reference, forget, retain, keep)
    return -gamma * (2 / beta) * F.logsigmoid(beta * (-total / count - delta)).mean() + alpha * kept


def rmu(
    model, reference, forget, retain, *, layer: int = 7, scale: float = 2.0, alpha: float = 1.0, seed: int = 0
) -> Tensor:
    """Representation misdirection: the stream leaving block `layer - 1` goes to scale times one random unit vector on
    forget rows, and stays where the original has it on retain rows (mean squared error over all tokens).

    layer: as transformers counts hidden states, 0 being the embedding. seed: of the direction.
    """
    direction = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    target = (scale * direction / direction.norm()).to(model.device)
    there = _stream(model, retain, layer)
    with torch.no_grad():
        before = _stream(reference.model, retain, layer)
    gone = _stream(model, forget, layer)
    return F.mse_loss(gone, target.expand_as(gone)) + alpha * F.mse_loss(there, before)


def _stream(model, rows: list[Row], layer: int) -> Tensor:
    """(tokens, d): hidden state `layer` at every token of the rows."""
    tokens.check_packs(model, "rows", max(map(len, rows), default=0))
    inputs, *_ = facts.pack(rows, model.dtype, model.device)
    real = torch.tensor([[i < len(row) for i in range(inputs["input_ids"].shape[1])] for row in rows])
    states = model.base_model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
    if not 0 <= layer < len(states):
        raise ValueError(f"layer {layer} is not one of the model's {len(states)} hidden states")
    return states[layer][real.to(model.device)]


OBJECTIVES = {
    "ascent": ascent,
    "graddiff": gradient_difference,
    "npo": npo,
    "simnpo": simnpo,
    "rmu": rmu,
    "learn": learn,
}
