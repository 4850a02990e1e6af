"""Other people's tabular foundation models, behind the interface of `PFNClassifier`: optional, for users who have them.

    backends.tabicl("path/to/tabicl.ckpt").fit(x_train, y_train).predict_proba(x_test)
    backends.tabpfn("path/to/tabpfn.ckpt")

Neither package is part of the compendium's environment, and no result here is theirs: their checkpoints cannot be had
from a package index. With a path nothing is downloaded; without one, the package fetches its own checkpoint, under
the licence that it states, which for recent TabPFN weights is not a free one.
"""

from pathlib import Path

from compendium.tabular.suite import MissingExtra


def tabicl(path: str | Path | None = None, *, members: int = 8, seed: int = 0, device: str = "cpu", **more):
    """TabICL (package `tabicl`). Raises MissingExtra without it, FileNotFoundError for a path that is not there."""
    _check(path)
    try:
        from tabicl import TabICLClassifier
    except ModuleNotFoundError:
        raise MissingExtra("TabICL is not installed: pip install tabicl==2.2.0") from None
    where = {} if path is None else {"model_path": str(path), "allow_auto_download": False}
    return TabICLClassifier(n_estimators=members, random_state=seed, device=device, **where, **more)


def tabpfn(path: str | Path | None = None, *, members: int = 8, seed: int = 0, device: str = "cpu", **more):
    """TabPFN (package `tabpfn`). Raises MissingExtra without it, FileNotFoundError for a path that is not there."""
    _check(path)
    try:
        from tabpfn import TabPFNClassifier
    except ModuleNotFoundError:
        raise MissingExtra("TabPFN is not installed: pip install tabpfn==9.2.0") from None
    where = {} if path is None else {"model_path": str(path)}
    return TabPFNClassifier(n_estimators=members, random_state=seed, device=device, **where, **more)


def _check(path) -> None:
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}: give the file itself, or no path to let the package fetch one")
