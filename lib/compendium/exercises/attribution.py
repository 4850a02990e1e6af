"""Exercises of notebooks/01_attribution/01_walkthrough.ipynb."""

import torch

from compendium.exercises import Exercise, Exercises, near, needs, number


def _patching(answer):
    """A linear model, of which attribution patching is exact, and random tensors."""
    generator = torch.Generator().manual_seed(0)
    clean, corrupt, gradient = (torch.randn(3, 5, 7, generator=generator) for _ in range(3))
    got = answer(clean, corrupt, gradient)
    if wrong := needs(got, (3,)):
        return wrong
    fall = -((corrupt - clean) * gradient).sum((1, 2))
    if near(got, -fall):
        return "the sign: a positive score says that patching makes the metric fall"
    if near(got, fall / 5) or near(got, fall / 35):
        return "an average was taken: the effects of all tokens and dimensions add up"
    return None if near(got, fall) else "on random tensors the numbers differ"


def _average_gradient(answer):
    """A cubic, whose gradient is known at every point."""
    start, end, steps = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([2.0, 0.5, 1.0]), 4
    f = lambda x: (x**3).sum()
    got = answer(f, start, end, steps)
    if wrong := needs(got, (3,)):
        return wrong
    got = torch.as_tensor(got).detach()

    def mean(fractions):
        return torch.stack([3 * (start + t * (end - start)) ** 2 for t in fractions]).mean(0)

    if near(got, mean([k / steps for k in range(steps)])):
        return None
    if near(got, mean([k / steps for k in range(1, steps + 1)])):
        return "the points run from step 1 to the end; here they run from the start, and leave the end out"
    if near(got, mean([(k + 0.5) / steps for k in range(steps)])):
        return "these are midpoints: better as an integral, but not the rule of section 5"
    if near(got, (end - start) * mean([k / steps for k in range(steps)])):
        return "the difference of the ends is multiplied in already: return the average gradient alone"
    return "for the sum of cubes the average is another one"


EXERCISES = Exercises(
    Exercise(
        "edges",
        "how many edges end in the query, key and value of one head of layer 10",
        1,
        5,
        (
            "Every earlier part of the model feeds each of the three inputs.",
            "Earlier parts: the embedding, and in each of ten layers nine heads and one MLP.",
        ),
        number(
            303,
            "count the sources before layer 10, and multiply by the three inputs",
            0,
            one=((101), "these are the sources: each of them feeds the query, the key and the value"),
        ),
    ),
    Exercise(
        "empty-circuit",
        "the faithfulness of a circuit without any edge, with clean and corrupt swapped",
        1,
        5,
        ("What does a run compute when every edge carries its corrupt value?", "It is the corrupt run itself."),
        number(0, "an empty circuit is the corrupt run, whichever prompt that is", 0),
    ),
    Exercise(
        "attribution-patching",
        "write attribution_patching(clean, corrupt, gradient)",
        2,
        15,
        (
            "To first order a function changes by (difference of its input) times (its gradient).",
            "Multiply (corrupt - clean) by the gradient, and sum over tokens and dimensions of each part.",
            "The score is how far the metric falls: minus that sum.",
        ),
        _patching,
    ),
    Exercise(
        "average-gradient",
        "write average_gradient(f, start, end, steps)",
        2,
        20,
        (
            "Make a point between start and end, tell torch that it needs a gradient, and call f(point).backward().",
            "The points are start + k / steps * (end - start) for k = 0, 1, ..., steps - 1.",
            "point = (...).detach().requires_grad_(True); f(point).backward(); total = total + point.grad / steps.",
        ),
        _average_gradient,
    ),
)
check, hint, overview = EXERCISES.check, EXERCISES.hint, EXERCISES.overview
