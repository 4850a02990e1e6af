"""Where things live. The only module that knows the shape of the repository."""

from pathlib import Path

HERE = Path(__file__).parent
CLONE = (HERE.parents[1] / "pipeline.yaml").exists()  # else a wheel, whose data lies beside the code
ROOT = HERE.parents[1] if CLONE else Path.cwd()
DATA = ROOT / "data" if CLONE else HERE / "data"  # facts, prompts and their data card
ATTRIBUTION = DATA / "attribution"  # what circuits are worth: one folder per study
UNLEARNING = DATA / "unlearning"  # what unlearned models answered: one folder per study
MODELS = DATA / "models" if CLONE else Path.home() / ".cache/compendium"  # fetched weights, git-ignored
TABULAR = DATA / "tabular"  # the prior-fitted network, and what all methods reached
XAI = DATA / "xai"  # what explanations, their metrics and auditors reached: one folder per study
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"  # one folder per notebook: images, the numbers behind them, claims
EXECUTED = ROOT / "executed"  # executed notebooks: what people read


def relative(path) -> str:
    """`path` as it reads from the repository root (unchanged when it lies elsewhere)."""
    path = Path(path)
    try:
        return path.resolve().relative_to(ROOT).as_posix()
    except ValueError:
        return path.as_posix()
