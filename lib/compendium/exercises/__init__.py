"""Exercises of the walkthroughs: hidden tests, hints and times; the notebooks do not show the answers.

    from compendium.exercises import unlearning as exercises

    exercises.overview()                     # what there is to do, and how long it takes
    exercises.check("nearest-level", mine)   # a function, or a number
    exercises.hint("nearest-level")          # the next hint; the last one nearly says it

A test returns None for a right answer, or one line that says what is wrong with this one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DIFFICULTY = {1: "easy", 2: "medium", 3: "hard"}


class Exercise(NamedTuple):
    """One exercise. minutes: what a student who has read the section needs; test: of the answer, see above."""

    name: str
    task: str
    difficulty: int
    minutes: int
    hints: tuple[str, ...]
    test: Callable[[object], str | None]


class Exercises:
    """The exercises of one walkthrough; remembers which hints were given."""

    def __init__(self, *exercises: Exercise):
        self.by_name = {exercise.name: exercise for exercise in exercises}
        self.given = dict.fromkeys(self.by_name, 0)

    def _one(self, name: str) -> Exercise:
        if name not in self.by_name:
            raise KeyError(f"no exercise {name!r} here: choose among {', '.join(self.by_name)}")
        return self.by_name[name]

    def overview(self) -> None:
        """Print what there is to do."""
        for e in self.by_name.values():
            print(f"{e.name:22} {DIFFICULTY[e.difficulty]:7} {e.minutes:2} min  {e.task}")

    def check(self, name: str, answer) -> bool:
        """Say whether the answer is right, and what is wrong with it if not; None counts as not answered yet.

        Returns whether it is right. Raises KeyError for an exercise that is not here; what the answer raises is said.
        """
        exercise = self._one(name)
        if answer is None:
            print(f"{name}: not answered yet")
            return False
        try:
            wrong = exercise.test(answer)
        except NotImplementedError:
            print(f"{name}: not answered yet")
            return False
        except Exception as error:  # a student's function may raise anything
            wrong = f"it raised {type(error).__name__}: {error}"
        print(f"{name}: right" if wrong is None else f"{name}: not yet: {wrong}")
        return wrong is None

    def hint(self, name: str, number: int | None = None) -> None:
        """Print a hint: the given one, or the next."""
        exercise = self._one(name)
        at = self.given[name] if number is None else number - 1
        at = min(max(at, 0), len(exercise.hints) - 1)
        self.given[name] = at + 1
        print(f"hint {at + 1} of {len(exercise.hints)}: {exercise.hints[at]}")


def near(got, expected, tolerance: float = 1e-4) -> bool:
    """Whether two numbers or arrays agree, in shape as well."""
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    return got.shape == expected.shape and bool(np.allclose(got, expected, rtol=tolerance, atol=1e-6))


def number(expected, otherwise: str, tolerance: float = 0.01, **mistakes):
    """A test of a number or a list of numbers. mistakes: name=(value, what to say of it)."""

    def test(answer):
        if near(answer, expected, tolerance):
            return None
        for value, said in mistakes.values():
            if near(answer, value, tolerance):
                return said
        return otherwise

    return test


def needs(value, shape=None) -> str | None:
    """What is wrong with the form of a returned value, if anything is."""
    if value is None:
        return "it returns None: does it end with `return`?"
    if shape is not None and tuple(np.shape(value)) != tuple(shape):
        return f"it returns the shape {tuple(np.shape(value))}; {tuple(shape)} is asked for"
    return None
