"""Stories, their splits and tokenizer; answers in text; files in GSM8K and MBPP format."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compendium.policy_opt import gsm8k, mbpp, regions, word_problems


def calculate(question):
    """A story's answer, read from its words by other means than those that made it."""
    sentences = question.split(".")[:-1]
    total = int(re.search(r"\d+", sentences[0])[0])
    for sentence in sentences[1:]:
        if "doubles" in sentence:
            total *= 2
        else:
            n = int(re.search(r"\d+", sentence)[0])
            total += n if re.search("buys|finds|gets", sentence) else -n
    return total


@pytest.mark.parametrize("split", word_problems.SPLITS)
def test_stories_are_right_and_varied(split):
    made = word_problems.problems(300, split, seed=1)
    assert len({problem.question for problem in made}) == 300
    for problem in made:
        assert problem.answer == calculate(problem.question)
        assert word_problems.correct(problem.solution, problem.answer)
        assert not word_problems.correct(problem.solution, problem.answer + 1)
        equations = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)\.", problem.solution)
        assert len(equations) in (2, 3)
        for a, symbol, b, c in equations:
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[symbol] == int(c)
            assert 0 < int(c) <= word_problems.LARGEST
    filler = [sum(sentence in problem.solution for sentence in word_problems.FILLER) for problem in made]
    assert 0.5 < sum(filler) / len(filler) < 1.5
    assert word_problems.problems(300, split, seed=1) == made
    assert word_problems.problems(300, split, seed=2) != made


def test_hasty_solutions_stop_one_calculation_early():
    made = word_problems.problems(400, seed=1, hasty=0.7)
    count = lambda problem: problem.solution.count("=")
    steps = lambda problem: problem.question.count(".") - 1
    short, long = ([p for p in made if steps(p) == n] for n in (2, 3))
    assert all(count(p) == 2 and word_problems.correct(p.solution, p.answer) for p in short)
    early = [p for p in long if count(p) == 2]
    assert 0.6 < len(early) / len(long) < 0.8
    assert all(p.answer == calculate(p.question) for p in made)
    assert all(word_problems.extract(p.solution) == float(re.findall(r"= (\d+)", p.solution)[-1]) for p in made)


def test_splits_do_not_overlap():
    made = {split: word_problems.problems(800, split, seed=3) for split in word_problems.SPLITS}
    questions = [{problem.question for problem in part} for part in made.values()]
    assert not any(one & other for i, one in enumerate(questions) for other in questions[:i])
    for split, part in made.items():
        starts = {int(re.search(r"\d+", problem.question)[0]) for problem in part}
        assert (
            starts <= set(word_problems.HELD_OUT) if split == "operands" else not starts & set(word_problems.HELD_OUT)
        )

    def frames(split):
        """(verb, sentence without verb, item, name and number) of every step."""
        found = set()
        for problem in made[split]:
            for sentence in problem.question.split(". ")[1:-1]:
                verb = re.search("|".join(sum(word_problems.VERBS.values(), ())), sentence)
                if verb:
                    names = "|".join([*word_problems.NAMES, *word_problems.ITEMS, r"\d+"])
                    found.add((verb[0], re.sub(names, "_", sentence.replace(verb[0], "V").removesuffix("."))))
        return found

    assert not frames("train") & frames("templates")
    assert {verb for verb, _ in frames("train")} == {verb for verb, _ in frames("templates")}
    assert {frame for _, frame in frames("train")} == {frame for _, frame in frames("templates")}


def test_validation_does_not_depend_on_what_is_trained():
    assert word_problems.problems(5, "validation", seed=1) == word_problems.problems(10, "validation", seed=1)[:5]
    with pytest.raises(ValueError, match="fewer than 1000 different stories"):
        word_problems.problems(1000, steps=(0,))
    with pytest.raises(ValueError, match="unknown split 'test': choose one of train, validation"):
        word_problems.problems(1, "test")


def test_the_tokenizer_knows_every_story_and_gives_it_back():
    tokenizer = word_problems.tokenizer()
    assert len(tokenizer) == 84
    for split in word_problems.SPLITS:
        for problem in word_problems.problems(100, split):
            text = problem.question + problem.solution
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == " " + text
            prompt = tokenizer(problem.question)["input_ids"]
            assert ids[: len(prompt)] == prompt
            assert tokenizer(problem.solution)["input_ids"] == ids[len(prompt) :]
            assert len(ids) - len(prompt) <= 64
    padded = tokenizer(["tom has 12 apples.", "tom"], padding=True)["input_ids"]
    assert padded[1][:3] == [tokenizer.pad_token_id] * 3


def test_both_kinds_of_spans_are_found_in_solutions():
    tokenizer = word_problems.tokenizer()
    for problem in word_problems.problems(50, filler=1.0, seed=5):
        ids = [*tokenizer(problem.solution)["input_ids"], tokenizer.eos_token_id]
        region = regions.regions(tokenizer, ids)
        text = [tokenizer.decode(ids[span.start : span.end]).strip() for span in region.spans]
        kinds = [span.kind for span in region.spans]
        assert kinds.count("calculation") == problem.solution.count("=")
        assert all(t in word_problems.FILLER for t, kind in zip(text, kinds, strict=True) if kind == "sentence")
        assert kinds.count("sentence") == problem.solution.count("=")
        assert tokenizer.decode(ids[slice(*region.answer)]).strip() == str(int(problem.answer))


# Answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "strict", "loose"),
    [
        ("so 3 + 4 = 7.\n#### 7", 7, 7),
        ("#### $1,234.50 in all", 1234.5, 1234.5),
        ("####-12", -12, -12),
        ("#### −$5", -5, -5),
        ("Final Answer: \\boxed{1{,}000}", 1000, 1000),
        ("\\boxed{\\$42}", 42, 42),
        ("12 #### 13 #### 14", 13, 13),
        ("#### 5. The final answer is 6", 6, 6),
        ("it is 7 or 8.", None, 8),
        ("#### none", None, None),
        ("", None, None),
        ("#### 1,2,3", None, None),
        ("#### .5", 0.5, 0.5),
    ],
)
def test_extraction(text, strict, loose):
    assert word_problems.extract(text) == strict
    assert word_problems.extract(text, strict=False) == loose


@settings(deadline=None, max_examples=60)
@given(
    st.integers(-(10**7), 10**7),
    st.sampled_from(["#### {}", "the final answer is {}.", "\\boxed{{{}}}"]),
    st.booleans(),
)
def test_every_number_is_read_back_and_told_from_its_neighbour(value, form, commas):
    text = form.format(f"{value:,}" if commas else value)
    assert word_problems.correct(text, value)
    assert not word_problems.correct(text, value + 1)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60))
def test_any_text_has_an_answer_or_none(text):
    for strict in (True, False):
        found = word_problems.extract(text, strict=strict)
        assert found is None or isinstance(found, float)


# Files -----------------------------------------------------------------------------------------------------------


def written(path, *items):
    path.write_text("\n".join(json.dumps(item) for item in items) + "\n")
    return str(path)


SUM = {"question": "What is 2 + 3? ", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}
TASK = {
    "text": "Write a function to double a number.",
    "code": "def double(x): return 2 * x",
    "task_id": 1,
    "test_list": ["assert double(2) == 4", "assert double(-1) == -2"],
    "test_setup_code": "import math",
}


def test_gsm8k_format(tmp_path):
    (problem,) = gsm8k.gsm8k(written(tmp_path / "sums.jsonl", SUM))
    assert problem == word_problems.Problem("What is 2 + 3?", SUM["answer"], 5.0)


def test_mbpp_format(tmp_path):
    other = {
        "prompt": "Write it.",
        "code": "",
        "test_list": ["assert True"],
        "test_imports": ["import re", "import os"],
    }
    first, second = mbpp.mbpp(written(tmp_path / "tasks.jsonl", TASK, other))
    assert first == mbpp.Program(TASK["text"], TASK["code"], tuple(TASK["test_list"]), "import math")
    assert (second.question, second.setup) == ("Write it.", "import re\nimport os")


@pytest.mark.parametrize(
    ("load", "good", "change", "message"),
    [
        (gsm8k.gsm8k, SUM, {"answer": "5"}, "item 2: it needs a question, and an answer that ends in '#### number'"),
        (gsm8k.gsm8k, SUM, {"question": ""}, "item 2: it needs a question"),
        (gsm8k.gsm8k, SUM, {"answer": 5}, "item 2: it needs a question"),
        (mbpp.mbpp, TASK, {"test_list": []}, "item 2: it needs a text and a test_list"),
        (mbpp.mbpp, TASK, {"text": None}, "item 2: it needs a text"),
    ],
)
def test_items_out_of_format_are_named(tmp_path, load, good, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load(written(tmp_path / "set.jsonl", good, good | change))


def test_sources_that_cannot_be_had_are_explained(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "broken.jsonl").write_text('{"question": \n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    for name, message in (("empty", "holds no items"), ("broken", "item 1: not JSON"), ("list", "item 1: it needs")):
        with pytest.raises(ValueError, match=message):
            gsm8k.gsm8k(str(tmp_path / f"{name}.jsonl"))
    with pytest.raises(ValueError, match="neither a file nor a hub id"):
        gsm8k.gsm8k("data/nowhere.jsonl")
    with pytest.raises(ValueError, match="give revision="):
        mbpp.mbpp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Here:\n```python\nx = 1\ny = 2\n```\nand\n```\nz = 3\n```", "x = 1\ny = 2"),
        ("```\nx = 1", "x = 1"),
        ("x = 1", "x = 1"),
        ("```python\n```", ""),
    ],
)
def test_programs_are_found_in_completions(text, expected):
    assert mbpp.program(text).strip() == expected


def test_share_of_tests_passed(tmp_path):
    (task,) = mbpp.mbpp(written(tmp_path / "task.jsonl", TASK))
    assert mbpp.share_passed(f"Sure.\n```python\n{task.solution}\n```", task) == 1
    assert mbpp.share_passed("```python\ndef double(x): return 4\n```", task) == 0.5
    assert mbpp.share_passed("I cannot.", task) == 0
