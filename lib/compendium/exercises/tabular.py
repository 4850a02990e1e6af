"""Exercises of notebooks/04_tabular/01_walkthrough.ipynb."""

import numpy as np
import torch

from compendium.exercises import Exercise, Exercises, near, needs, number


def _error(confidence, correct, bins):
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    of = [place == b for b in range(bins)]
    return sum(m.mean() * abs(confidence[m].mean() - correct[m].mean()) for m in of if m.any())


def _calibration(answer):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 400)
    correct = rng.uniform(size=400) < 0.75  # too modest below, too sure above: gaps of both signs
    got = answer(confidence, correct, 10)
    if wrong := needs(got, ()):
        return wrong
    if near(got, _error(confidence, correct, 10)):
        return None
    place = np.minimum((confidence * 10).astype(int), 9)
    gaps = [abs(confidence[place == b].mean() - correct[place == b].mean()) for b in range(10) if (place == b).any()]
    if near(got, np.mean(gaps)):
        return "the bins count alike: weigh each by its share of the rows"
    if near(got, max(gaps)):
        return "this is the maximum calibration error: the expected one is a weighted mean"
    if near(got, abs(confidence.mean() - correct.mean())):
        return "this is the gap over all rows: errors of opposite sign in two bins must not cancel"
    return "for 400 rows and 10 bins of equal width the error is another one"


def _attend(answer):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(6, 4, generator=generator) for _ in range(3))
    got = answer(q, k, v, 3)
    if wrong := needs(got, (6, 4)):
        return wrong
    right = (q @ k[:3].T / 2).softmax(-1) @ v[:3]
    if near(got, right):
        return None
    if near(got, (q @ k.T / 2).softmax(-1) @ v):
        return "every row looks at all rows: only the first `context` rows carry a label to look at"
    if near(got, (q @ k[:3].T).softmax(-1) @ v[:3]):
        return "the products are not divided by the root of the width"
    if near(got, (q @ k[:3].T / 2).softmax(0) @ v[:3]):
        return "the softmax runs over the wrong axis: the weights of one row must sum to 1"
    return "on random rows the output is another one"


EXERCISES = Exercises(
    Exercise(
        "finite-logits",
        "the network has ten outputs, two classes were shown: how many logits of a row are finite",
        1,
        3,
        ("Classes that the context does not have are ruled out.", "Their logits are minus infinity."),
        number(2, "only classes of the context can be predicted", 0),
    ),
    Exercise(
        "shuffled-labels",
        "the accuracy to expect when the labels of the context are shuffled",
        1,
        5,
        ("There is nothing left to learn from the context.", "The two classes are balanced."),
        number(0.5, "what does a coin reach on two balanced classes?", 0.1),
    ),
    Exercise(
        "calibration-error",
        "write calibration_error(confidence, correct, bins)",
        2,
        20,
        (
            "The bin of a row is the whole part of confidence x bins; a confidence of 1 belongs to the last bin.",
            "In each bin: how far is the mean confidence from the share that is correct?",
            "Weigh each bin's gap by its share of all rows, and add up; leave empty bins out.",
        ),
        _calibration,
    ),
    Exercise(
        "attend",
        "write attend(q, k, v, context): every row looks at the labelled rows only",
        3,
        20,
        (
            "The labelled rows are the first `context` rows of k and v.",
            "Weights: softmax over those rows of q times k, divided by the root of the width.",
            "(q @ k[:context].T / q.shape[-1] ** 0.5).softmax(-1) @ v[:context]",
        ),
        _attend,
    ),
)
check, hint, overview = EXERCISES.check, EXERCISES.hint, EXERCISES.overview
