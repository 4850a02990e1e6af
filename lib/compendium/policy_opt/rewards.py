"""The reward layer: callables of one signature, rules and learned models alike, each with a weight that counts once.

    functions, weights = rewards.build({"correct": 1.0, "calculations": 0.3, "runs/judge/policy": 0.5})

A reward is TRL's: `(prompts, completions, completion_ids, **columns) -> list`, one number a completion, or None where
it does not apply; columns are those of the data set, such as `answer`. Completions are texts, or messages for chat.
A reward says how good, never how important: only the trainer multiplies by the weights, so a weight cannot enter twice.

| name | value | needs |
|---|---|---|
| `correct` | 1 for the right number after the answer's marker, else 0 | answer |
| `calculations` | share of the written calculations that are true; 0 if none is written | |
| `marker` | 1 if there is an answer's marker with a number | |
| `programs` | share of the task's tests that pass, in the sandbox | tests, setup |
| `package.module:function` | your own | |
| a folder | score of a sequence classifier, such as `method: reward` trains | |

`correct` and `calculations` with weights 0.7 and 0.3 are the partial credit of counterfactual GRPO's authors.
"""

import ast
import importlib
import math
import operator
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import torch

from compendium import tokens
from compendium.policy_opt import mbpp, numbers, regions, word_problems


def text(completion) -> str:
    """A completion's text, from text or from messages."""
    return completion if isinstance(completion, str) else "".join(message["content"] for message in completion)


def correct(completions, answer, **_) -> list[float]:
    """1 where the number after the marker is the answer."""
    return [float(word_problems.correct(text(c), a)) for c, a in zip(completions, answer, strict=True)]


def marker(completions, **_) -> list[float]:
    """1 where a marker and a number after it say what the answer is, whatever it is."""
    return [float(word_problems.extract(text(c)) is not None) for c in completions]


OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
WRITTEN = {"×": "*", "·": "*", "∗": "*", "÷": "/", "∕": "/", "\\times": "*", "\\cdot": "*", "\\div": "/", "^": "**"}
WRITTEN |= {sign: "+" if sign in "+＋" else "-" for sign in numbers.SIGNS}
WORDS = re.compile(r"(?<=[\d)\]}%])\s+(x|X|times|multiplied by|plus|minus|divided by)\s+(?=[-−+(\[{$€£¥₹\\.\d])")
MEANT = {"x": "*", "X": "*", "times": "*", "multiplied by": "*", "plus": "+", "minus": "-", "divided by": "/"}
ANNOTATION = re.compile(r"<<([^<>\n]*)>>")


def value(expression: str) -> float | None:
    """The value of an arithmetic expression as people write it; None if it is anything else."""
    expression = WORDS.sub(lambda found: f" {MEANT[found[1]]} ", expression)
    for written, meant in WRITTEN.items():
        expression = expression.replace(written, meant)
    expression = numbers.LATEX.sub(lambda found: "(({})/({}))".format(*(x for x in found.groups() if x)), expression)
    plain = _plain(expression)
    if plain is None:
        return None
    try:
        return _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _plain(expression: str) -> str | None:
    """The expression without currency and with its numbers written as Python does; None if one cannot be read whole."""
    written, at = [], 0
    while at < len(expression):
        letter = expression[at]
        if letter.isascii() and (letter.isdigit() or (letter == "." and expression[at + 1 : at + 2].isdigit())):
            found = numbers.digits(expression, at)
            if found is None or not math.isfinite(found[1]) or re.match(r"\w", expression[found[0] :]):
                return None
            if re.match(r"0+[1-9]\d*(?![\d.])", expression[at:], re.ASCII):
                return None  # 07: no one writes so
            written.append(repr(found[1]))
            at = found[0]
        else:
            written.append("" if letter in "$€£¥₹\\" else letter)
            at += 1
    return "".join(written).strip()


def _value(node) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(node)


def calculations(completions, **_) -> list[float]:
    """Share of the calculations in the text whose two sides are equal; sides that cannot be read do not count.

    GSM8K's annotations, as in "5 + 2 = <<5+2=7>>7", belong to the calculation that they stand in, and must agree with
    it.
    """
    shares = []
    for completion in completions:
        written = text(completion)
        known = [_holds(written[a:b]) for a, b in regions.calculations(written)]
        known = [holds for holds in known if holds is not None]
        shares.append(sum(known) / len(known) if known else 0.0)
    return shares


def _holds(calculation: str) -> bool | None:
    """Whether all sides of a calculation are equal, as it stands and as annotated; None where neither can be read."""
    parts = [ANNOTATION.sub("", calculation), *ANNOTATION.findall(calculation)]
    sides = [[value(side) for side in part.split("=")] for part in parts]
    readable = [part for part in sides if None not in part]
    if readable and sides[0][-1] is not None:
        readable.append(sides[0][-1:])  # "50% of 80 = <<.5*80=40>>41": its left side is words, its result is a number
    if not readable:
        return None
    return all(math.isclose(side, readable[0][0], rel_tol=1e-6) for part in readable for side in part)


def programs(completions, tests, setup, **_) -> list[float]:
    """Share of each task's tests that the program in a completion passes."""
    found = zip(completions, tests, setup, strict=True)
    return [mbpp.share_passed(text(c), mbpp.Program("", "", tuple(t), s)) for c, t, s in found]


RULES = {"correct": correct, "calculations": calculations, "marker": marker, "programs": programs}


class Learned:
    """A sequence classifier's score as a reward: of prompt, completion and end of text, as TRL's RewardTrainer had
    them in training (its GRPOTrainer leaves the end of text away when it scores, so we do not hand it the model)."""

    def __init__(self, name: str, *, device: str = "cpu", batch: int = 64):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.__name__, self.batch = Path(name).name, batch
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.tokenizer.padding_side = "right"
        self.model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1).eval().to(device)
        pad = self.model.config.get_text_config().pad_token_id  # by which the model finds where a text ends
        if pad is None or self.tokenizer.eos_token is None:
            missing = "end token in its tokenizer" if self.tokenizer.eos_token is None else "pad_token_id in its config"
            raise ValueError(f"it has no {missing}: the end of a text cannot be found, set it and save the model again")
        self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(pad)

    @torch.no_grad()
    def __call__(self, prompts, completions, **_) -> list[float]:
        if not len(completions):
            return []
        if isinstance(completions[0], str):
            end = "" if tokens.appended(self.tokenizer) else self.tokenizer.eos_token  # once, whoever puts it there
            rows = self.tokenizer([f"{p}{c}{end}" for p, c in zip(prompts, completions, strict=True)])["input_ids"]
        else:
            messages = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
            rows = self.tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        scores = []
        for i in range(0, len(rows), self.batch):
            inputs = self.tokenizer.pad({"input_ids": rows[i : i + self.batch]}, return_tensors="pt")
            scores += self.model(**inputs.to(self.model.device)).logits[:, 0].tolist()
        return scores


def get(name: str, device: str = "cpu") -> Callable:
    """The reward of this name; device: of learned ones. Raises ValueError with the nearest name, or saying why yours
    cannot be had."""
    if name in RULES:
        return RULES[name]
    if ":" in name:
        module, _, function = name.partition(":")
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"reward {name!r} cannot be had: {error}") from None
    if Path(name).is_dir():
        try:
            return Learned(name, device=device)
        except (OSError, ValueError) as error:
            raise ValueError(f"reward model {name!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    close = get_close_matches(name, RULES, 1, 0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(
        f"unknown reward {name!r}: {hint}there are {', '.join(RULES)}; 'module:function' for your own; a model's folder"
    )


def build(names: dict[str, float], device: str = "cpu") -> tuple[list[Callable], list[float]]:
    """The rewards by name, and their weights in the same order. Raises ValueError as `get` does, and for none."""
    if not names:
        raise ValueError("no rewards: name at least one, such as {correct: 1.0}")
    return [get(name, device) for name in names], [float(weight) for weight in names.values()]
