"""Which facts of `data/facts.csv` the embedded model knows: what can be forgotten, and what it costs to look, once."""

import pandas as pd

from compendium import facts, files, models
from compendium.paths import DATA

KNOWN = DATA / "known.csv"


def write(threads: int = 2) -> pd.DataFrame:
    """Write data/known.csv, by `facts.known`."""
    models.set_threads(threads)
    found = facts.known(*models.load())
    files.write(KNOWN, found.to_csv(index=False, lineterminator="\n"))
    return found
