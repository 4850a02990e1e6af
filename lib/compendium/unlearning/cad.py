"""Circuit Attribution Divergence: has the mechanism gone, or only what it says?

MANSU (arXiv 2605.15138) names CAD as the measure that tells structural erasure from behavioural suppression; its
formula is not in the text we could read. Ours compares attribution scores of the same prompts on the model before and
after an edit, inside the circuit that carried the behaviour before it:

- `cosine`: 1 - cosine of the two score vectors. The headline: a model that is merely quieter scores 0.
- `mass`: 1 - (sum of absolute scores after) / (before). It rises whenever the metric falls, however that came about, so
  alone it cannot tell erasure from suppression; negative when scores grew.
- `jaccard`: 1 - overlap of the two models' strongest entries, as many as the circuit has, wherever they lie.
- `rank`: 1 - Spearman correlation inside the circuit.

Read each beside its noise floor: the same number between two halves of the prompts on the unedited model.
"""

import torch
from scipy.stats import spearmanr
from torch import Tensor


def divergence(before: Tensor, after: Tensor, circuit: Tensor) -> dict[str, float]:
    """All four divergences of node (sources,) or edge (sources, destinations) scores; `circuit`: bool, same shape.

    Raises ValueError when shapes differ, the circuit has fewer than two entries, or one model's scores in it are zero.
    """
    if not before.shape == after.shape == circuit.shape or circuit.dtype != torch.bool:
        raise ValueError(
            f"scores {tuple(before.shape)}, {tuple(after.shape)} and circuit {tuple(circuit.shape)} ({circuit.dtype}) "
            "must have one shape, the circuit bool"
        )
    k = int(circuit.sum())
    if k < 2:
        raise ValueError(f"the circuit has {k} entries: nothing can diverge in fewer than two")
    a, b = (scores.double().cpu() for scores in (before, after))
    inside = circuit.cpu()
    a_in, b_in = a[inside], b[inside]
    if not a_in.any() or not b_in.any():
        raise ValueError("all scores in the circuit are zero: the metric does not depend on it")
    tops = [set(scores.flatten().abs().topk(k).indices.tolist()) for scores in (a, b)]
    return {
        "cosine": 1 - torch.cosine_similarity(a_in, b_in, dim=0).item(),
        "mass": 1 - (b_in.abs().sum() / a_in.abs().sum()).item(),
        "jaccard": 1 - len(tops[0] & tops[1]) / len(tops[0] | tops[1]),
        "rank": 1 - float(spearmanr(a_in, b_in).statistic),
    }
