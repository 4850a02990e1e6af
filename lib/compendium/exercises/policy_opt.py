"""Exercises of notebooks/03_policy_opt/01_walkthrough.ipynb."""

import math

import torch

from compendium.exercises import Exercise, Exercises, near, needs, number
from compendium.policy_opt import losses


def _advantages(answer):
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    got = answer(rewards, 4)
    if wrong := needs(got, (8,)):
        return wrong
    groups = rewards.view(2, 4)
    centred = groups - groups.mean(1, keepdim=True)
    right = losses.group_advantages(rewards, 4)
    if near(got, right, 1e-2):
        return None
    if near(got, centred.flatten()):
        return "this is Dr. GRPO's: GRPO also divides by the standard deviation of the group"
    if near(got, rewards - rewards.mean(), 1e-2) or near(got, (rewards - rewards.mean()) / rewards.std(), 1e-2):
        return "the mean is over both groups: siblings are only the completions of the same question"
    if near(got, (centred / groups.std(1, correction=0, keepdim=True)).flatten(), 1e-2):
        return "nearly: torch's default standard deviation divides by n - 1"
    return "for two groups of four the numbers differ"


def _loss(answer):
    generator = torch.Generator().manual_seed(0)
    then = -torch.rand(4, 6, generator=generator)
    now = then + 0.5 * torch.randn(4, 6, generator=generator)
    mask = torch.arange(6) < torch.tensor([6, 3, 1, 5])[:, None]
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    got = answer(now, then, advantages, mask)
    if wrong := needs(got, ()):
        return wrong
    right = losses.grpo(now, then, None, advantages, mask)
    if near(got, right):
        return None
    ratio = (now - then).exp()
    weighed = torch.minimum(ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None])
    if near(got, -right):
        return "the sign: a loss falls where the policy gets better"
    if near(got, -(weighed * mask).sum() / mask.sum()):
        return "this is DAPO's mean over all tokens: GRPO averages over each completion's tokens first"
    if near(got, -weighed.mean()):
        return "tokens after a completion's end are counted: use the mask"
    clipped = ratio.clamp(0.8, 1.2) * advantages[:, None]
    if near(got, -((clipped * mask).sum(1) / mask.sum(1)).mean()):
        return "the ratio is always clipped: take the smaller of the clipped and the plain product"
    return "on random log-probabilities the loss is another one"


EXERCISES = Exercises(
    Exercise(
        "one-of-four",
        "one of four completions is right: its advantage in Dr. GRPO",
        1,
        3,
        ("Dr. GRPO subtracts the group's mean and does not divide.", "The mean of 1, 0, 0, 0 is a quarter."),
        number(
            0.75,
            "its reward minus the mean of the four rewards",
            scaled=(1.5, "this is GRPO's, divided by the standard deviation"),
        ),
    ),
    Exercise(
        "where-the-push-ends",
        "DAPO (0.2 below, 0.28 above): the largest probability that a better token of 0.5 is pushed to",
        1,
        5,
        ("A positive advantage stops pushing at the upper end of the clip.", "There the ratio is 1.28."),
        number(
            0.64,
            "multiply the old probability by the largest ratio that is still pushed",
            low=(0.6, "DAPO's upper end is 0.28, not 0.2"),
        ),
    ),
    Exercise(
        "k3",
        "k3 of a token of probability 0.02 whose reference gives it 0.1",
        2,
        5,
        ("g is the log-probability of the reference minus the policy's.", "exp(g) - g - 1 with g = log(0.1 / 0.02)"),
        number(
            5 - math.log(5) - 1,
            "exp(g) - g - 1 with g = log(reference / policy)",
            0.005,
            turned=(0.2 + math.log(5) - 1, "the quotient is turned round: the reference stands above"),
        ),
    ),
    Exercise(
        "group-advantages",
        "write group_advantages(rewards, group): GRPO's",
        1,
        10,
        (
            "Rewards of one question stand side by side: rewards.view(-1, group) has one row a question.",
            "Subtract each row's mean and divide by its standard deviation plus 1e-4; flatten the result.",
        ),
        _advantages,
    ),
    Exercise(
        "clipped-loss",
        "write grpo_loss(now, then, advantages, mask), clipped at 0.2",
        3,
        25,
        (
            "ratio = (now - then).exp() has one number a token; the advantage is one a completion.",
            "Of ratio x A and clip(ratio, 0.8, 1.2) x A take the smaller one, token by token.",
            "Average over each completion's own tokens (use the mask), then over completions, and turn the sign.",
        ),
        _loss,
    ),
)
check, hint, overview = EXERCISES.check, EXERCISES.hint, EXERCISES.overview
