"""Beyond Behaviour: edits, credit and explanations that hold when you look inside the model.

    from compendium import PFNClassifier, audit, losses, xai

These four are what other people's code asks for most; every module can be imported by its own name as well.
"""

import importlib

__version__ = "0.1.0"
_OFFERED = {  # loaded when asked for, since each brings large packages along
    "PFNClassifier": ("compendium.tabular.pfn", "PFNClassifier"),
    "audit": ("compendium.unlearning.audit", None),
    "losses": ("compendium.policy_opt.losses", None),
}
__all__ = list(_OFFERED)


def __getattr__(name: str):
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _OFFERED[name]
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
