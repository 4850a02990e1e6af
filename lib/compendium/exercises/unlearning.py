"""Exercises of notebooks/02_unlearning/01_walkthrough.ipynb."""

import torch

from compendium import nf4
from compendium.exercises import Exercise, Exercises, near, needs, number


def _nearest(answer):
    x = torch.rand(500, generator=torch.Generator().manual_seed(0)) * 2 - 1
    got = answer(x, nf4.LEVELS)
    if wrong := needs(got, (500,)):
        return wrong
    right = (x[:, None] - nf4.LEVELS).abs().argmin(1)
    got = torch.as_tensor(got)
    if torch.equal(got.long(), right) and not got.is_floating_point():
        return None
    if near(got, nf4.LEVELS[right]):
        return "these are the levels: the code is a level's number, 0 to 15"
    if torch.equal(got.long(), torch.bucketize(x, nf4.LEVELS)):
        return "this counts the levels below: the nearest level may be the one above or the one below"
    return f"{(got.long() != right).float().mean():.0%} of 500 random weights get another code"


def _floor(answer):
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(64 * 40, generator=generator)
    update = 0.1 * torch.randn(w.shape, generator=generator)
    g = nf4.geometry(w)
    up, down = g.distance_up, g.distance_down
    update = torch.where(g.is_absmax, torch.zeros(()), update)
    got = answer(update, up, down)
    if wrong := needs(got, w.shape):
        return wrong
    got = torch.as_tensor(got)
    towards = torch.where(update > 0, up, down)
    kept = (update.abs() >= towards / 2) & (update != 0)
    if not torch.equal(got == 0, ~kept):
        few = "an update" if ((got == 0) & kept).any() else "an update that"
        return (
            f"{few} came {'at least' if ((got == 0) & kept).any() else 'less than'} half of the way to its boundary"
            + (" and was dropped" if ((got == 0) & kept).any() else " was kept")
        )
    if (got * update < 0).any():
        return "some updates changed their sign"
    if ((got.abs() < update.abs()) & kept).any():
        return "some updates became smaller than they were"
    inside = kept & (got.abs() <= towards) & towards.isfinite()
    if inside.any():
        return f"{int(inside.sum())} updates that are kept do not pass their boundary"
    if (kept & towards.isfinite() & (got.abs() > torch.maximum(update.abs(), 1.02 * towards))).any():
        return "some updates go further than they must: past the boundary by a hundredth is enough"
    return None


EXERCISES = Exercises(
    Exercise(
        "widest-gap",
        "the widest of the fifteen gaps between levels, in units of the largest magnitude",
        1,
        5,
        ("Subtract neighbouring levels.", "Look at the outermost ones: the lowest gap is wider than the highest."),
        number(
            nf4.GAPS.max().item(),
            "take the largest difference of neighbouring levels",
            high=((nf4.LEVELS[-1] - nf4.LEVELS[-2]).item(), "this is the highest gap: the lowest is wider"),
        ),
    ),
    Exercise(
        "chance-to-cross",
        "the chance that an update of 0.0006 crosses, for a weight anywhere in a cell of width 0.06",
        1,
        5,
        (
            "The weight crosses if it lies within 0.0006 of the boundary that it moves towards.",
            "It may lie anywhere in the cell with equal chance.",
        ),
        number(
            0.01, "divide what counts as near by the width of the cell", both=(0.02, "it moves in one direction only")
        ),
    ),
    Exercise(
        "nearest-level",
        "write nearest_level(x, levels): the code of every scaled weight",
        1,
        10,
        (
            "Compare every weight with every level: x[:, None] - levels has one row a weight.",
            "The nearest level has the smallest absolute difference.",
            "(x[:, None] - levels).abs().argmin(1)",
        ),
        _nearest,
    ),
    Exercise(
        "magnitude-floor",
        "write magnitude_floor(update, up, down): past the boundary, or not at all",
        3,
        25,
        (
            "A positive update moves towards the boundary `up` away, a negative one towards the one `down` away.",
            "Drop (set to zero) what came less than half of that way; keep at least 1.01 times the way of the others.",
            "towards = torch.where(update > 0, up, down); size = torch.maximum(update.abs(), 1.01 * towards); "
            "mind the infinite distances, which no update passes.",
        ),
        _floor,
    ),
)
check, hint, overview = EXERCISES.check, EXERCISES.hint, EXERCISES.overview
