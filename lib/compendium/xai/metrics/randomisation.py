"""Model parameter randomisation for tables (MPRT; Adebayo et al., 2018)."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from compendium.xai.calls import Stated
from compendium.xai.metrics.faithfulness import correlation


def mprt(model, X, target, explain, *, mode: str = "cascading", seed: int = 0, **options) -> pd.DataFrame:
    """Model parameter randomisation test (Adebayo et al. 2018): a row an instance, a column a layer, from the output.

    Values are Spearman correlations of |attribution| before and after the layer's weights, and in mode "cascading"
    those of all layers after it, are redrawn from a normal distribution of the same mean and spread. An explanation
    that stays the same (near 1) does not depend on what the model has learnt. nan where all attributions are equal.
    explain: an explainer of `explain`, called with `options`; model: a torch net, left as it was.
    """
    from copy import deepcopy

    import torch

    if mode not in ("cascading", "independent"):
        raise ValueError(f"unknown mode {mode!r}: choose cascading or independent")
    as_stated = (lambda net: Stated(net, model.kind)) if isinstance(model, Stated) else (lambda net: net)
    net = model.model if isinstance(model, Stated) else model
    if not isinstance(net, torch.nn.Module):
        raise ValueError("only torch nets have layers to randomise")
    before = rankdata(np.abs(explain(model, X, target, seed=seed, **options)), axis=1)
    names = [name for name, m in net.named_modules() if any(True for _ in m.parameters(recurse=False))]
    generator, found, changed = torch.Generator().manual_seed(seed), {}, deepcopy(net)
    for name in reversed(names):
        if mode == "independent":
            changed = deepcopy(net)
        with torch.no_grad():
            for weight in changed.get_submodule(name).parameters(recurse=False):
                spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
                drawn = torch.randn(weight.shape, generator=generator).to(weight)
                weight.copy_(weight.mean() + spread * drawn)
        after = rankdata(np.abs(explain(as_stated(changed), X, target, seed=seed, **options)), axis=1)
        found[name] = correlation(before, after)
    return pd.DataFrame(found)
