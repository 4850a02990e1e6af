"""MBPP: short programs, and the share of a problem's tests that one passes in the sandbox."""

from dataclasses import dataclass

import numpy as np

from compendium import hub
from compendium.policy_opt import programs, sandbox


@dataclass(frozen=True)
class Program:
    """A programming task: what to write, assert statements that a right program passes, and what they import."""

    question: str
    solution: str
    tests: tuple[str, ...]
    setup: str = ""


def mbpp(
    source: str = "google-research-datasets/mbpp", *, revision: str | None = None, split: str = "test"
) -> list[Program]:
    """Programming tasks in MBPP format: items with `text` (or `prompt`), `code` and `test_list`; optionally
    `test_setup_code` or `test_imports`. Arguments and errors as for `gsm8k`."""
    found = []
    for where, item in hub.items(source, None, revision, split):
        question, tests = item.get("text") or item.get("prompt"), item.get("test_list")
        said = isinstance(tests, list) and tests and all(isinstance(test, str) and test.strip() for test in tests)
        if not isinstance(question, str) or not said:
            raise ValueError(f"{where}: it needs a text and a test_list of assert statements")
        parts = [item.get("test_setup_code") or "", *(item.get("test_imports") or [])]
        code = item.get("code") or ""
        if not all(isinstance(part, str) for part in (code, *parts)):
            raise ValueError(f"{where}: code, test_setup_code and test_imports must be texts")
        found.append(Program(question.strip(), code, tuple(tests), "\n".join(parts).strip()))
    return found


program = programs.program


def share_passed(text: str, task: Program, **limits) -> float:
    """Share of a task's tests that the program in a completion passes, 0 to 1. limits: see `sandbox.run`."""
    code = program(text, programs.names_used(task.tests, task.setup))
    return float(np.mean(sandbox.run(code, task.tests, setup=task.setup, **limits).passed))
