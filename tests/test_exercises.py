"""Exercises: every solution notebook is right, wrong answers are told why, and every walkthrough asks what there is."""

import contextlib
import importlib
import io
import re

import nbformat
import numpy as np
import pytest
import torch

from compendium import exercises, nf4
from compendium.paths import NOTEBOOKS, ROOT

SECTIONS = {p.parent.name: p for p in sorted(NOTEBOOKS.glob("*/01_walkthrough.ipynb"))}
OF = {section: importlib.import_module(f"compendium.exercises.{section[3:]}") for section in SECTIONS}


def said(function, *arguments):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        function(*arguments)
    return out.getvalue().strip()


@pytest.mark.parametrize("section", SECTIONS)
def test_solutions_are_right(section):
    space = {}
    cells = [c for c in nbformat.read(ROOT / f"book/solutions/{section}.ipynb", 4).cells if c.cell_type == "code"]
    printed = []
    for cell in cells:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(cell.source, space)
        printed += out.getvalue().split("\n")
    names = OF[section].EXERCISES.by_name
    assert [line for line in printed if line] == [f"{name}: right" for name in names]


@pytest.mark.parametrize("section", SECTIONS)
def test_walkthroughs_ask_every_exercise_and_show_no_answer(section):
    cells = nbformat.read(SECTIONS[section], 4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    names = list(OF[section].EXERCISES.by_name)
    assert re.findall(r'exercises\.check\("([\w-]+)"', text) == names
    assert sum("write " in e.task for e in OF[section].EXERCISES.by_name.values()) >= 2
    assert "Solution" not in text


@pytest.mark.parametrize("section", SECTIONS)
def test_walkthroughs_can_be_taught(section):
    text = "\n".join(c.source for c in nbformat.read(SECTIONS[section], 4).cells if c.cell_type == "markdown")
    for needed in ("After this you can", "You need", "| minutes | what |", "Whose is what", "## Discuss", "$$"):
        assert needed in text
    minutes = [int(m) for m in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert sum(minutes) == 90


@pytest.mark.parametrize("section", SECTIONS)
def test_hints_come_one_after_the_other(section):
    one = OF[section].EXERCISES
    for name, exercise in one.by_name.items():
        assert len(exercise.hints) >= 2
        told = [said(one.hint, name) for _ in range(len(exercise.hints) + 1)]
        assert told[0].startswith("hint 1 of")
        assert told[-1] == told[-2]
        one.given[name] = 0


def _all_orders_wrong(value, d):
    everyone = tuple(range(d))
    return np.array([value(everyone) - value(tuple(i for i in everyone if i != j)) for j in everyone])


def _by_size(f, row, attribution, baseline):
    current, points = row.copy(), [f(row)]
    for j in np.argsort(-np.abs(attribution)):
        current[j] = baseline[j]
        points.append(f(current))
    return (np.array(points[1:]) + points[:-1]).mean() / 2


WRONG = [
    ("attribution", "edges", 101, "sources"),
    ("attribution", "attribution-patching", lambda a, b, g: ((b - a) * g).sum((1, 2)), "sign"),
    ("attribution", "attribution-patching", lambda a, b, g: -((b - a) * g).mean((1, 2)), "average"),
    ("attribution", "attribution-patching", lambda a, b, g: -((b - a) * g).sum(1), "shape"),
    (
        "attribution",
        "average-gradient",
        lambda f, a, b, n: 3 * torch.stack([(a + (k + 1) / n * (b - a)) ** 2 for k in range(n)]).mean(0),
        "leave the end out",
    ),
    ("unlearning", "widest-gap", (nf4.LEVELS[-1] - nf4.LEVELS[-2]).item(), "highest"),
    ("unlearning", "chance-to-cross", 0.02, "one direction"),
    ("unlearning", "nearest-level", lambda x, q: q[(x[:, None] - q).abs().argmin(1)], "number"),
    ("unlearning", "nearest-level", lambda x, q: torch.bucketize(x, q), "levels below"),
    ("unlearning", "magnitude-floor", lambda u, up, down: u, "was kept"),
    ("unlearning", "magnitude-floor", lambda u, up, down: torch.zeros_like(u), "was dropped"),
    (
        "unlearning",
        "magnitude-floor",
        lambda u, up, down: torch.where(u.abs() >= torch.where(u > 0, up, down) / 2, u, 0 * u),
        "do not pass",
    ),
    ("policy_opt", "one-of-four", 1.5, "standard deviation"),
    (
        "policy_opt",
        "group-advantages",
        lambda r, n: (r.view(-1, n) - r.view(-1, n).mean(1, keepdim=True)).flatten(),
        "Dr. GRPO",
    ),
    ("policy_opt", "group-advantages", lambda r, n: (r - r.mean()) / r.std(), "both groups"),
    (
        "policy_opt",
        "clipped-loss",
        lambda n, t, a, m: (
            -(torch.minimum((n - t).exp() * a[:, None], (n - t).exp().clamp(0.8, 1.2) * a[:, None]) * m).sum() / m.sum()
        ),
        "DAPO",
    ),
    (
        "policy_opt",
        "clipped-loss",
        lambda n, t, a, m: -(((n - t).exp().clamp(0.8, 1.2) * a[:, None] * m).sum(1) / m.sum(1)).mean(),
        "always clipped",
    ),
    ("tabular", "calibration-error", lambda p, y, b: abs(p.mean() - y.mean()), "cancel"),
    ("tabular", "attend", lambda q, k, v, n: (q @ k.T / 2).softmax(-1) @ v, "all rows"),
    ("tabular", "attend", lambda q, k, v, n: (q @ k[:n].T).softmax(-1) @ v[:n], "root"),
    ("xai", "linear-ig", [6, 0], "baseline"),
    ("xai", "shapley", _all_orders_wrong, "occlusion"),
    ("xai", "deletion-area", _by_size, "by size"),
]


@pytest.mark.parametrize(("section", "name", "answer", "told"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong(section, name, answer, told):
    line = said(OF[next(s for s in OF if s.endswith(section))].check, name, answer)
    assert line.startswith(f"{name}: not yet: ")
    assert told in line


def test_what_is_no_answer_is_said():
    check = OF["05_xai"].check

    def fails(value, d):
        raise IndexError("list index out of range")

    def unfinished(value, d):
        raise NotImplementedError

    assert said(check, "shapley", None) == "shapley: not answered yet"
    assert said(check, "shapley", unfinished) == "shapley: not answered yet"
    assert (
        said(check, "shapley", lambda value, d: None) == "shapley: not yet: it returns None: does it end with `return`?"
    )
    assert said(check, "shapley", fails) == "shapley: not yet: it raised IndexError: list index out of range"
    with pytest.raises(KeyError, match="choose among linear-ig"):
        check("shaply", 1)


def test_near_minds_the_shape():
    assert exercises.near(np.ones(3), [1, 1, 1])
    assert not exercises.near(np.ones((3, 1)), [1, 1, 1])
