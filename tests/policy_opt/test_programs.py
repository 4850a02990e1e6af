"""Programs are found in completions, however they are presented."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compendium.policy_opt import blocks, mbpp, programs

DOUBLE = "def f(x):\n    return 2 * x"
TASK = mbpp.Program("Double it.", "", ("assert f(2) == 4", "assert f(0) == 0"))
FOLDER = Path(__file__).parent / "sandbox"


def doubles(code):
    """Whether code defines f, and f doubles."""
    space = {"__name__": "program"}
    exec(code, space)
    return space["f"](2) == 4


PRESENTED = dict(part.split("\n", 1) for part in ("\n" + (FOLDER / "presented.txt").read_text()).split("\n=== ")[1:])


@pytest.mark.parametrize("name", PRESENTED)
def test_programs_are_found_however_they_are_presented(name):
    text = PRESENTED[name]
    assert doubles(mbpp.program(text, ("f",)))
    assert doubles(mbpp.program(text))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("def", "\ufeffdef"),
        lambda text: text.replace("def", "\u200bdef"),
        lambda text: text.replace("    ", "\u00a0" * 4),
        lambda text: text.replace("    ", "\t"),
        lambda text: text.replace("    ", "\u3000\u2003"),
    ],
)
def test_line_ends_and_invisible_characters(change):
    for text in (DOUBLE, f"```python\n{DOUBLE}\n```", f"Sure:\n\n{DOUBLE}\n\nThat is it."):
        assert doubles(mbpp.program(change(text)))


CODES = st.sampled_from([DOUBLE, "x = 1\n\n\nclass A:\n    y = '''\n  ```\n'''", "f = lambda x: 2 * x", "# only this"])


@settings(deadline=None, max_examples=150)
@given(
    CODES,
    st.sampled_from("`~"),
    st.integers(3, 6),
    st.integers(0, 2),
    st.sampled_from(
        ["", "python", "py", " Python3", "python3.11", "{.python}", "py title=a.py", "ipython3", "python {1,3}"]
    ),
    st.integers(0, 9),
    st.sampled_from(["", "Here:\n\n", "1. So:\n"]),
    st.sampled_from(["", "\nIt works.", "\n\nDone"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "> "]),
)
def test_how_a_fence_is_written_makes_no_difference(code, mark, length, more, info, indent, before, after, end, quote):
    lines = [mark * length + info, *code.split("\n"), mark * (length + more)]
    block = "\n".join(quote + " " * indent + line for line in lines)
    found = mbpp.program((before + block + after).replace("\n", end))
    assert [line.strip() for line in found.strip().split("\n")] == [line.strip() for line in code.split("\n")]
    assert blocks.parses(found)


PARTS = st.sampled_from(
    ["Some words.", "x = 1", "    y = 2", "", "> quoted", "* item", "```", "~~~", "```python", "````py a", "~~~~"]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(PARTS, max_size=9))
def test_fences_are_those_of_commonmark(parts):
    """Where a document's blocks are all Python, another implementation of CommonMark finds the same ones."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt()
    text = "\n".join(parts)
    expected = [token.content for token in markdown.parse(text) if token.type == "fence" and token.level == 0]
    if any(not blocks.parses(code) or "```" in code or "~~~" in code for code in expected):
        return
    found = [block.code for block in blocks.fenced(text)]
    assert [code.strip("\n") for code in found] == [code.strip("\n") for code in expected]


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=80))
def test_any_text_is_read(text):
    assert isinstance(mbpp.program(text), str)
    assert isinstance(mbpp.program(f"```python\n{text}", ("f",)), str)


def test_python_is_left_as_it_is():
    """Not a character changes where the whole completion, or one block, is a program."""
    for part in (FOLDER / "right.txt").read_text().split("=== ")[1:]:
        code = part.partition("\n")[2].partition("--- ")[0].rstrip("\n")
        assert mbpp.program(code) == code
        assert mbpp.program(f"Look:\n```python\n{code}\n```\nThat is it.").rstrip("\n") == code


def test_which_blocks_are_taken():
    draft, use = "def f(x):\n    return x", "print(f(int(input())))"
    fenced = lambda *codes: "\nthen\n".join(f"```python\n{code}\n```" for code in codes)
    assert mbpp.program(fenced(draft, DOUBLE, use), ("f",)).strip() == DOUBLE
    assert mbpp.program(fenced(DOUBLE, draft), ("f",)).strip() == draft  # the last word counts, right or wrong
    helper, user = "def g(x):\n    return x", "def f(x):\n    return 2 * g(x)"
    assert mbpp.program(fenced(helper, use, user), ("f",)).strip() == f"{helper}\n\n{user}"
    assert mbpp.program(fenced(helper, DOUBLE), ("f",)).strip() == DOUBLE
    assert mbpp.program(fenced(helper, DOUBLE)).strip() == f"{helper}\n\n{DOUBLE}"
    future = "from __future__ import annotations"
    joined = mbpp.program(fenced("import math", f"{future}\ndef f(x: A):\n    return math.floor(2 * x)"), ("f",))
    assert joined.startswith(future)
    assert doubles(joined)


def test_what_tests_use():
    tests = ("assert f(sorted(x for x in xs)) == g", "def check(c):\n    assert c(1)\ncheck(h)", "y = f(2); assert y")
    assert programs.names_used(tests, "xs = [1]") == ("f", "g", "h")
    assert programs.names_used(("assert sum(1, 2) == 3",)) == ()


@pytest.mark.parametrize(
    "code",
    [
        f"{DOUBLE}\n\nif __name__ == '__main__':\n    import unittest\n    unittest.main()",
        f"import sys\n{DOUBLE}\ndef main():\n    return 1\nif __name__ == '__main__':\n    sys.exit(main())",
        f"{DOUBLE}\nif __name__ == '__main__':\n    print(f(int(input())))",
        f"from __future__ import annotations\n{DOUBLE}",
        f"{DOUBLE}\nexit()",
        f"{DOUBLE}\nprint(f(int(input())))",
    ],
)
def test_right_programs_score(code):
    assert mbpp.share_passed(f"Of course.\n```python\n{code}\n```\nIt doubles.", TASK) == 1


@pytest.mark.parametrize(
    "text",
    [
        "I cannot.",
        "",
        "def g(x):\n    retrun x x\n\ndef f(x):\n    return 2 * x",  # a mistake is not prose
        "```python\ndef f(x)\n    return 2 * x\n```",
        "class A:\n    x = = 1\n    def f(x):\n        return 2 * x",
        "```python\nif __name__ == '__main__':\n    def f(x):\n        return 2 * x\n```",
    ],
)
def test_wrong_programs_do_not(text):
    assert mbpp.share_passed(text, TASK) == 0


@pytest.mark.parametrize(
    ("part", "times"),
    [(" ", 20_000), ("- ", 9_000), ("> ", 9_000), ("`", 20_000), ("```\nx y\n", 300), ("a, ", 8_000), ("a b\n", 1_000)],
)
def test_no_text_takes_long(part, times):
    started = time.process_time()
    mbpp.program(f"x y\n{part * times}z\n", ("f",))
    assert time.process_time() - started < 5
