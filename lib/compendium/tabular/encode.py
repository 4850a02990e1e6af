"""From a table to what the network reads: numbers of one scale in a fixed number of slots.

Everything is learnt from context rows, the labelled ones; rows to predict are only transformed. A numeric column is
standardised, or mapped to normal scores by its ranks (which undoes skew and outliers); a nominal column becomes one
column a level where all levels of all such columns fit in the slots, otherwise its levels are numbered in random order.
Missing values stay nan: the network has its own input for them. A column without variation is left out.

    encoder = Encoder(nominal, kind="ranks", rng=rng).fit(x[:context])
    slots = place(encoder.transform(x), rng)                    # (rows, SLOTS)
"""

import numpy as np
from scipy.special import ndtri

from compendium import inputs

SLOTS = 64
KINDS = ("standard", "ranks")
ONE_HOT = 10  # most levels of a column that gets one column a level


def _soften(z: np.ndarray) -> np.ndarray:
    """Beyond three deviations, grow with the logarithm only."""
    size = np.abs(z)
    return np.where(size > 3, np.sign(z) * (3 + np.log1p(np.maximum(size - 3, 0))), z)


class Encoder:
    """Learns scales and levels from context rows.

    nominal: (columns,) bool, columns of codes. kind: one of KINDS, for the numeric columns. rng: orders levels. Raises
    ValueError for marks that are not True/False, and for tables of another width.
    """

    def __init__(self, nominal: np.ndarray, *, kind: str = "standard", rng: np.random.Generator):
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
        nominal = np.asarray(nominal)
        self.nominal = nominal if nominal.dtype == bool and nominal.ndim == 1 else inputs.binary(nominal, "nominal")
        self.kind, self.rng = kind, rng

    def _checked(self, x: np.ndarray) -> None:
        if x.shape[1] != len(self.nominal):
            raise ValueError(f"the table has {x.shape[1]} columns, and nominal has {len(self.nominal)} marks")

    def fit(self, x: np.ndarray) -> "Encoder":
        """x: (rows, columns) float, nan: missing."""
        self._checked(x)
        numeric = np.flatnonzero(~self.nominal)
        values = x[:, numeric].astype(np.float64)
        known = ~np.isnan(values)
        count = known.sum(0)
        filled = np.where(known, values, 0.0)
        centre = filled.sum(0) / np.maximum(count, 1)
        # Squares of huge values would overflow: measure the spread in units of the largest deviation.
        deviation = np.where(known, values - centre, 0.0)
        unit = np.abs(deviation).max(0, initial=0.0)
        unit = np.where(unit > 0, unit, 1.0)
        spread = unit * np.sqrt(((deviation / unit) ** 2).sum(0) / np.maximum(count, 1))
        varies = spread > 1e-12 * np.maximum(np.abs(centre), 1e-300)
        self.numeric, self.centre, self.spread = numeric[varies], centre[varies], spread[varies]
        if self.kind == "ranks":
            self.sorted = [np.sort(values[known[:, j], j]) for j in np.flatnonzero(varies)]
        levels = {j: np.unique(x[~np.isnan(x[:, j]), j]) for j in np.flatnonzero(self.nominal)}
        self.levels = {j: self.rng.permutation(found) for j, found in levels.items() if len(found) > 1}
        wide = sum(1 if len(found) == 2 else len(found) for found in self.levels.values())
        few = all(len(found) <= ONE_HOT for found in self.levels.values())
        self.one_hot = few and wide + len(self.numeric) <= SLOTS
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """(rows, encoded columns) float32; levels not seen in the context count as missing."""
        self._checked(x)
        z = (x[:, self.numeric].astype(np.float64) - self.centre) / self.spread
        if self.kind == "ranks":
            for k, (j, known) in enumerate(zip(self.numeric, self.sorted, strict=True)):
                # Ties take the middle of their ranks.
                rank = (np.searchsorted(known, x[:, j], "left") + np.searchsorted(known, x[:, j], "right")) / 2
                z[:, k] = np.where(np.isnan(x[:, j]), np.nan, ndtri((rank + 0.5) / (len(known) + 1)))
        parts = [_soften(z)]
        for j, found in self.levels.items():
            same = x[:, j, None] == found
            seen = same.any(1)
            if self.one_hot and len(found) > 2:
                coded = same - 1 / len(found)
                coded /= np.sqrt((1 - 1 / len(found)) / len(found))  # deviation 1 where levels are equally frequent
            else:
                coded = (same.argmax(1)[:, None] - (len(found) - 1) / 2) / np.sqrt((len(found) ** 2 - 1) / 12)
            parts.append(np.where(seen[:, None], coded, np.nan))
        return np.concatenate(parts, 1).astype(np.float32)


def place(z: np.ndarray, rng: np.random.Generator, *, part: int = 0, deal: int = 0) -> np.ndarray:
    """Columns in random slots, (rows, SLOTS) float32; empty slots are 0.

    With more columns than slots, columns are dealt into groups, by chance but alike for one number `deal`, and `part`
    says whose turn it is. Values grow with the share of empty slots, so that rows of narrow and wide tables have one
    length.
    """
    columns = np.random.default_rng(deal).permutation(z.shape[1])
    groups = -(-len(columns) // SLOTS) or 1
    columns = np.roll(columns, -(part % groups) * SLOTS)[:SLOTS]
    out = np.zeros((len(z), SLOTS), np.float32)
    out[:, rng.permutation(SLOTS)[: len(columns)]] = z[:, columns] * np.sqrt(SLOTS / max(len(columns), 1))
    return out
