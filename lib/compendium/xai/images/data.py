"""Images of digits and glyphs whose evidence lies at known pixels."""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

SIZE, CELL, MARGIN, GLYPH = 28, 8, 2, 7  # 3 x 3 cells inside a margin that only marks use

_BITMAPS = """
cross   ring    diagonal tee     bar     post    steps   frame
...#... ..###.. #.....# ####### ....... ..##... ##..... #....##
...#... .#...#. .#...#. ...#... ....... ..##... ##..... #......
...#... #.....# ..#.#.. ...#... ####### ..##... ..##... #......
####### #.....# ...#... ...#... ####### ..##... ..##... #......
...#... #.....# ..#.#.. ...#... ....... ..##... ....##. #......
...#... .#...#. .#...#. ...#... ....... ..##... ....##. #.....#
...#... ..###.. #.....# ...#... ....... ..##... ....... #######
"""


EVIDENCE = ("cross", "ring", "diagonal", "tee")  # class 0, 1, 2, 3


DISTRACTORS = ("bar", "post", "steps", "frame")


class Images(NamedTuple):
    """Rendered images and what is known about them."""

    x: np.ndarray  # (n, 1, 28, 28) float32
    y: np.ndarray  # (n,) class: the shape of the evidence glyph
    mask: np.ndarray  # (n, 28, 28) bool, the 7 x 7 box of that glyph: its ink and its gaps
    hint: np.ndarray  # (n,) class that the corner of the mark stands for
    mark: np.ndarray  # (n, 28, 28) bool, the 4 x 4 corner with the 2 x 2 mark, without pixels of glyphs
    other: np.ndarray  # (n,) class of the second evidence glyph, -1 where there is none
    other_mask: np.ndarray  # (n, 28, 28) bool, its box
    shapes: np.ndarray  # (n, 28, 28) bool, boxes of all glyphs, and the mark


def bitmaps() -> dict[str, np.ndarray]:
    """Glyph name -> (7, 7) array of 0 and 1."""
    names, *rows = (line.split() for line in _BITMAPS.strip().splitlines())
    return {name: np.array([[c == "#" for c in row[k]] for row in rows], float) for k, name in enumerate(names)}


def glyphs(
    n: int, seed: int = 0, *, shortcut: float = 0.0, evidence: int = 1, distractors: int = 3, noise: float = 0.1
) -> Images:
    """`n` images: `evidence` glyphs of different classes (1 or 2) among distractors, in random cells.

    shortcut: share of the images whose mark is put into the corner of their class; in the others, and so in all with 0,
    the corner is drawn at random. With evidence=2 the class is that of the first glyph, `other` that of the second.
    """
    if not 0 <= shortcut <= 1:
        raise ValueError(f"shortcut is a share of images, 0 to 1, not {shortcut}")
    if evidence not in (1, 2) or evidence + distractors > 9:
        raise ValueError("one or two evidence glyphs, and at most nine glyphs, fit into an image")
    rng = np.random.default_rng([seed, 28])
    drawn, K = bitmaps(), len(EVIDENCE)
    x = rng.normal(0, noise, (n, 1, SIZE, SIZE)).clip(-2 * noise, 2 * noise)
    y = rng.integers(K, size=n)
    other = (y + rng.integers(1, K, size=n)) % K if evidence == 2 else np.full(n, -1)
    hint = np.where(rng.random(n) < shortcut, y, rng.integers(K, size=n))
    mask, other_mask, mark, shapes = (np.zeros((n, SIZE, SIZE), bool) for _ in range(4))
    for i in range(n):
        names = [EVIDENCE[y[i]], *([EVIDENCE[other[i]]] if evidence == 2 else [])]
        names += rng.choice(DISTRACTORS, distractors).tolist()
        for k, (name, cell) in enumerate(zip(names, rng.permutation(9), strict=False)):
            top, left = MARGIN + CELL * np.array(divmod(cell, 3)) + rng.integers(CELL - GLYPH + 1, size=2)
            box = np.s_[top : top + GLYPH, left : left + GLYPH]
            x[i, 0][box] += drawn[name] * rng.uniform(0.7, 1)
            shapes[i][box] = True
            if k < evidence:
                (mask, other_mask)[k][i][box] = True
        x[i, 0][_corner(hint[i], MARGIN)] += 1
        mark[i][_corner(hint[i], 2 * MARGIN)] = True
    mark &= ~shapes
    return Images(x.astype(np.float32), y, mask, hint, mark, other, other_mask, shapes | mark)


def _corner(k: int, size: int) -> tuple[slice, slice]:
    return tuple(slice(0, size) if side == 0 else slice(SIZE - size, SIZE) for side in divmod(int(k), 2))


def digits(size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8, enlarged to `size`: x (n, 1, size, size) in 0..1, y (n,)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.as_tensor(found.images[:, None] / 16, dtype=torch.float32)
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False).numpy(), found.target
