"""Exercises of notebooks/05_xai/01_walkthrough.ipynb."""

from itertools import permutations

import numpy as np

from compendium.exercises import Exercise, Exercises, near, needs, number


def _shapley(answer):
    rng = np.random.default_rng(0)
    table = {frozenset(s): rng.normal() for n in range(5) for s in _subsets(4, n)}
    value = lambda known: table[frozenset(known)]
    got = answer(value, 4)
    if wrong := needs(got, (4,)):
        return wrong
    right = np.zeros(4)
    for order in permutations(range(4)):
        for place, j in enumerate(order):
            right[j] += (value(order[: place + 1]) - value(order[:place])) / 24
    if near(got, right):
        return None
    everyone = tuple(range(4))
    last = [value(everyone) - value([i for i in everyone if i != j]) for j in everyone]
    if near(got, last):
        return "this is occlusion: what a feature adds when it comes last. Average over all orders"
    if near(got, [value([j]) - value([]) for j in everyone]):
        return "this is what a feature adds when it comes first. Average over all orders"
    return f"for a random game of four players it is off by {np.abs(np.asarray(got) - right).max():.2g}"


def _subsets(d: int, size: int):
    from itertools import combinations

    return combinations(range(d), size)


def _deletion(answer):
    rng = np.random.default_rng(1)
    weights, row, baseline = rng.normal(size=5), rng.normal(size=5), rng.normal(size=5)
    f = lambda x: float(np.tanh(x @ weights))
    attribution = rng.normal(size=5)
    got = answer(f, row.copy(), attribution, baseline)
    if wrong := needs(got, ()):
        return wrong

    def area(order):
        current, points = row.copy(), [f(row)]
        for j in order:
            current[j] = baseline[j]
            points.append(f(current))
        return (np.array(points[1:]) + points[:-1]).mean() / 2

    if near(got, area(np.argsort(-attribution))):
        return None
    if near(got, area(np.argsort(attribution))):
        return "the order is upside down: the largest attribution goes first"
    if near(got, area(np.argsort(-np.abs(attribution)))):
        return "the order is by size: a large negative attribution is the last to go, not the first"
    if near(got, area(range(5))):
        return "the columns are removed in their own order: sort them by their attribution"
    return "for a random function of five features the area is another one"


EXERCISES = Exercises(
    Exercise(
        "linear-ig",
        "f(x) = 2 x₁ - x₂, baseline (1, 1), row (3, 0): the two integrated gradients",
        1,
        5,
        ("The gradient is the same everywhere.", "Weight times (value - baseline), for each column."),
        number(
            [4, 1],
            "weight times (value - baseline), for each of the two columns",
            zero=([6, 0], "the baseline is (1, 1), not (0, 0)"),
        ),
    ),
    Exercise(
        "product",
        "f(x) = x₁ x₂, background (0, 0), row (2, 3): two Shapley values, then two of occlusion",
        2,
        8,
        ("With a feature missing the product is 0.", "In either order the first feature adds 0 and the second adds 6."),
        number([3, 3, 6, 6], "whoever comes last adds everything; occlusion removes one at a time"),
    ),
    Exercise(
        "shapley",
        "write shapley(value, d): value(known) is that of a set of features",
        3,
        25,
        (
            "Go through all orders of the features: itertools.permutations(range(d)).",
            "In each order a feature adds value(those up to it, with it) - value(those before it).",
            "Average over the orders: divide by factorial(d).",
        ),
        _shapley,
    ),
    Exercise(
        "deletion-area",
        "write deletion_area(f, row, attribution, baseline)",
        2,
        15,
        (
            "Set features to the baseline one after the other, the largest attribution first, and note f each time.",
            "With d features there are d + 1 points, the untouched row among them.",
            "The area is the mean of the d trapezoids: (points[1:] + points[:-1]) / 2, averaged.",
        ),
        _deletion,
    ),
)
check, hint, overview = EXERCISES.check, EXERCISES.hint, EXERCISES.overview
