"""Self-checks for the exercises of the walkthroughs."""

import numpy as np


def check(answer, expected, hint: str, *, tolerance: float = 1e-3) -> None:
    """Say whether `answer` is `expected` (numbers within relative `tolerance`); None counts as not answered yet."""
    if answer is None:
        print("not answered yet")
        return
    try:
        right = bool(np.allclose(np.asarray(answer, float), np.asarray(expected, float), rtol=tolerance, atol=1e-9))
    except (TypeError, ValueError):
        right = answer == expected
    print("right" if right else f"not yet: {hint}")
