"""GSM8K, from a JSON-lines file or a hub data set."""

from compendium import hub
from compendium.policy_opt import numbers
from compendium.policy_opt.word_problems import MARKERS, Problem


def gsm8k(source: str = "openai/gsm8k", *, revision: str | None = None, split: str = "test") -> list[Problem]:
    """Word problems in GSM8K format: items with `question` and `answer`, the latter ending in "#### number".

    source: a JSON-lines file, or a hub data set with `revision`, a 40-digit commit, and `split`.
    Raises ValueError naming the first item that is not in the format, or why the set cannot be had.
    """
    found = []
    for where, item in hub.items(source, "main", revision, split):
        question, solution = item.get("question"), item.get("answer")
        ends = isinstance(solution, str) and MARKERS[1] in solution
        if not isinstance(question, str) or not question.strip() or not ends:
            raise ValueError(f"{where}: it needs a question, and an answer that ends in '#### number'")
        written = solution[solution.rindex(MARKERS[1]) + len(MARKERS[1]) :].strip()
        answer = numbers.read(written)
        if answer is None:
            raise ValueError(
                f"{where}: its answer ends in {written[:40]!r}, which cannot be read as one number: write it as "
                "'#### 1234.5'"
            )
        found.append(Problem(question.strip(), solution.strip(), answer))
    return found
