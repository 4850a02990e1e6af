"""Relevance propagated backwards (Backtrace), and what speaks for one class against another."""

import numpy as np

from compendium.xai.explain.preparation import check, need, wrapped


@wrapped
def relevance(model, X, target, *, background=None, seed=0, output="probability", baseline=None, **options):
    """`compendium.xai.relevance.relevance`: at least 0, of the raw score whatever `output` is."""
    from compendium.xai import relevance as rules

    X, target = check(model, X, target)
    need("relevance", model, output)
    return np.asarray(rules.relevance(model, X, target, **options), float)


@wrapped
def contrastive_relevance(model, X, target, *, background=None, seed=0, output="probability", baseline=None, **options):
    """`compendium.xai.relevance.contrastive`: signed, of the raw scores whatever `output` is."""
    from compendium.xai import relevance as rules

    X, target = check(model, X, target)
    need("contrastive relevance", model, output)
    return np.asarray(rules.contrastive(model, X, target, **options), float)
