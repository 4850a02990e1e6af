"""Pieces of a completion that may be a program: see `programs`, which chooses among them."""

import ast
import html
import itertools
import re
import textwrap
from collections.abc import Callable
from typing import NamedTuple

# No two repetitions of these patterns can share characters: they take time in proportion to a line.
FENCE = re.compile(r"^(?P<lead>(?:[ \t>]|(?:[-*+]|\d{1,9}[.)])[ \t])*)(?P<fence>`{3,}|~{3,}|'{3}(?=py))(?P<rest>.*)$")
PYTHON = re.compile(r"\s*\{?\s*\.?(?:i?py(?!tb|pi)\w*|sage|tool_code)[\d.]*", re.IGNORECASE)
NOT_PROGRAMS = re.compile(
    r"\s*\{?\s*\.?(text|txt|plain\w*|out\w*|console|bash|sh|shell\w*|zsh|cmd|json|ya?ml|toml|html|pytb|diff|sql|markdown|md"
    r"|result\w*|error|traceback|csv|log|none)\b",
    re.IGNORECASE,
)
MARKERS = [
    re.compile(rf"{opening}[ \t]*\n?(?P<code>.*?)(?:{closing}|\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE)
    for opening, closing in (
        (r"\[PYTHON\]", r"\[/PYTHON\]"),
        (r"\[CODE\]", r"\[/CODE\]"),
        (r"\[BEGIN\]", r"\[(?:DONE|END)\]"),
        (r"\[(?:ANSWER|SOLUTION)\]", r"\[/(?:ANSWER|SOLUTION)\]"),
        (r"<pre>\s*<code[^>\n]*>", r"</code>"),
        (r"<(?:code|python|pre|solution|answer)\b[^>\n]*>", r"</(?:code|python|pre|solution|answer)>"),
        (r"\\begin\{(?:code|python|lstlisting|minted|verbatim)\}(?:\[[^\]\n]*\]|\{\w+\})*", r"\\end\{\w+\}"),
        (r"^[ \t#*-]*BEGIN\b[^\n]*$", r"^[ \t#*-]*(?:END|DONE)\b[^\n]*$"),
    )
]
PROMPT = re.compile(r"^[ \t]*(?:>>>|\.\.\.|In \[\d+\]:|\.\.\.:)(?:[ ]|$)", re.MULTILINE)
COMMAND = re.compile(r"^([ \t]*)(?:!|%{1,2})\w.*$", re.MULTILINE)
NUMBER = re.compile(r"[ \t]*(\d{1,4})(?:[ \t]?[|:│.)] ?|[ \t]|$)")
BEGINS = re.compile(
    r"(?:from|import|def|async|class|for|while|if|try|with)\b|@|#|[A-Za-z_][\w., ]*(?:\[.*\])?\s*(?::[^=]*)?="
)
DEFINES = re.compile(r"(?:from|import|def|async|class)\b|@")
SPACES = dict.fromkeys(
    map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"), " "
)
SPACES |= dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
OUTPUT = 3
FENCES = 10  # at which of the fences after an opening one a block may end
LABEL = re.compile(r"^[ \t]*(?:answer|solution|code|program|python)[ \t]*:[ \t]*(?=\S)", re.IGNORECASE | re.MULTILINE)
LEFT = re.compile(
    r"\s*(?:async\s+def|def|class)\s+\w+\s*[:(]|[ \t]+return\b|\s*(?:for|while|if|elif|else|try|except|with)\b.*:\s*$"
)
QUOTES = {ord(a): b for a, b in zip("‘’‚′“”„″–−", "''''\"\"\"\"--", strict=True)}


class Block(NamedTuple):
    """A piece of a completion. rank: 0 said to be Python, 1 nothing said, 2 something else, 3 output."""

    code: str
    rank: int


def parses(code: str) -> bool:
    """Whether a text is Python."""
    return tree_of(code) is not None


def tree_of(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def defines(code: str) -> bool:
    """Whether code defines a function or class, or something that can be called."""
    tree = tree_of(code)
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    return tree is not None and any(
        isinstance(node, kinds) or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda))
        for node in tree.body
    )


def is_remark(node: ast.stmt) -> bool:
    """Whether a statement does nothing, as prose that happens to be Python does: `Done`, `[DONE]`. Not a docstring."""
    value = getattr(node, "value", None) if isinstance(node, ast.Expr) else None
    if isinstance(value, (ast.List, ast.Tuple)):
        return all(isinstance(item, ast.Name) for item in value.elts)
    return isinstance(value, ast.Name) or (isinstance(value, ast.Constant) and str(value.value).startswith("py"))


def fenced(text: str) -> list[Block]:
    """Fenced blocks, repaired."""
    lines, found, at = text.split("\n"), [], 0
    while at < len(lines):
        opened = FENCE.match(lines[at])
        if not opened:
            at += 1
            continue
        block, at = _block(lines, at, opened)
        inner = [] if parses(block.code) else _split(block)
        found += inner or ([block] if block.rank < OUTPUT else [])
    return found


def _split(block: Block) -> list[Block]:
    """Fenced blocks in a block, and what stands before the first if it is a program: its own fence was left open."""
    inner, lines = fenced(block.code), block.code.split("\n")
    before = "\n".join(itertools.takewhile(lambda line: not FENCE.match(line), lines))
    return [Block(before, block.rank), *inner] if inner and defines(before) else inner


def _block(lines: list[str], at: int, opened: re.Match) -> tuple[Block, int]:
    """The block that a fence at line `at` opens, and the line after it."""
    mark, length, rest = re.escape(opened["fence"][0]), len(opened["fence"]), opened["rest"]
    closing = re.compile(
        rf"^(?P<last>.*?)(?<!{mark}){mark}{{{length},}}[ \t]*(?:(?:</?\|?\w+\|?>|\[/?[A-Z]+\])[ \t]*)*$"
    )
    python = PYTHON.match(rest) or mark == "'"
    closed = closing.match(rest)
    if closed and closed["last"].strip():  # on the same line
        return Block(_code_of_line(closed["last"]), 0 if python else 1), at + 1
    line = _code_of_line(rest)
    begun = (DEFINES if python else BEGINS).match(line) and (parses(line) or parses(line + "\n    pass"))
    rank = 0 if python else 1 if begun or not rest.strip() else OUTPUT if NOT_PROGRAMS.match(rest) else 2
    ends = {i: found["last"].rstrip() for i in range(at + 1, len(lines)) if (found := closing.match(lines[i]))}
    ends = dict(itertools.islice(ends.items(), FENCES))
    usual = next((i for i, last in ends.items() if not last.strip(" \t>")), len(lines))
    for lead in dict.fromkeys((opened["lead"], "")):
        body = [line] * bool(begun) + [_led(one, lead) for one in lines[at + 1 :]]
        shift = at + 1 - bool(begun)
        pieces = {
            i: "\n".join([*body[: i - shift], *([_led(last, lead)] if last.strip() else [])])
            for i, last in ends.items()
        }
        pieces[len(lines)] = "\n".join(body)
        for i in sorted(pieces):
            code = repaired(pieces[i]) if i == usual else pieces[i]
            if parses(code):
                return Block(code, rank), i + 1
    return Block(pieces[usual], rank), usual + 1


def _code_of_line(text: str) -> str:
    """Code on a fence's own line, without the language before it."""
    text = text.strip()
    label = PYTHON.match(text)
    return text[label.end() :].strip() if label and not parses(text) else text


def _led(line: str, lead: str) -> str:
    """A line without what stands before the fence: a quotation's marks, or as much of its indentation."""
    quoted = lead.count(">")
    if quoted:
        line = re.sub(rf"^[ \t]*(?:>[ \t]?){{0,{quoted}}}", "", line)
        lead = lead.rpartition(">")[2][1:]
    width = len(lead.expandtabs(4))
    kept = line.lstrip(" \t")
    indent = len(line[: len(line) - len(kept)].expandtabs(4))
    return line if not width else " " * max(0, indent - width) + kept


def marked(text: str) -> list[Block]:
    for marker in MARKERS:
        found = [_unescaped(match["code"]) for match in marker.finditer(text)]
        found = [code for code in found if code.strip() and parses(code)]
        if found:
            return [Block(code, 0) for code in found]
    return []


def _unescaped(code: str) -> str:
    return _without_label(repaired(code.strip("\n")))


def session(text: str) -> list[Block]:
    """What follows a prompt."""
    code = "\n".join(PROMPT.sub("", line) for line in text.split("\n") if PROMPT.match(line))
    return [Block(code, 0)] if defines(code) else []


def inline(text: str) -> list[Block]:
    """Spans of inline code that define functions or classes."""
    found = [match[1].strip() for match in re.finditer(r"(?<!`)`{1,3}(?!`)([^`]+)`{1,3}(?!`)", text)]
    return [Block(code, 1) for code in map(_code_of_line, found) if defines(code)]


def definitions_among_prose(text: str) -> list[Block]:
    """Those of the next that define functions or classes, also where spaces and quotes have to be repaired."""
    for form in dict.fromkeys((text, text.translate(SPACES), text.translate(SPACES).translate(QUOTES))):
        found = among_prose(form)
        if any(defines(block.code) for block in found):
            return found
    return []


def among_prose(text: str) -> list[Block]:
    """Runs of lines that are Python, from a line that begins as code does, as long as they can be. None where lines are
    left that look like code, too: then it is no prose that is in the way, but a mistake."""
    lines, found, at = LABEL.sub("", text).split("\n"), [], 0
    while at < len(lines):
        indent = lines[at][: -len(lines[at].lstrip())] if lines[at].strip() else ""
        belongs = lambda line, indent=indent: not line.strip() or line.startswith(indent)
        run = [line[len(indent) :] for line in itertools.takewhile(belongs, lines[at:])]
        code = _longest(run) if BEGINS.match(lines[at].strip()) else None
        if code:
            found.append(Block(code, 1))
        elif LEFT.match(lines[at]):
            return []
        at += len(code.split("\n")) if code else 1
    return found


def _longest(lines: list[str]) -> str | None:
    """The longest beginning of these lines that is Python and ends in code, not in a word of prose."""
    end = len(lines)
    while end > 0:
        code = "\n".join(lines[:end])
        tree = tree_of(code)
        if tree is None:
            end = min(end - 1, _error_line(code) - 1)
            continue
        while tree.body and is_remark(tree.body[-1]):
            code = "\n".join(code.split("\n")[: tree.body.pop().lineno - 1])
        return code.rstrip() if tree.body else None
    return None


def _error_line(code: str) -> int:
    try:
        ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, MemoryError, RecursionError):
        return 1
    return len(code)


# Repairs ---------------------------------------------------------------------------------------------------------


def repaired(code: str) -> str:
    """Code made Python by the first repair, or the first two, that can; otherwise as it is."""
    if parses(code):
        return code
    for steps in itertools.chain(((r,) for r in REPAIRS), itertools.permutations(REPAIRS, 2)):
        fixed = code
        for step in steps:
            fixed = step(fixed)
        if fixed != code and parses(fixed):
            return fixed
    fixed = code
    for step in REPAIRS:
        fixed = step(fixed)
    return fixed if parses(fixed) else code


def _without_prompts(code: str) -> str:
    """A session's input, if it begins with a prompt."""
    lines = textwrap.dedent(code).strip("\n").split("\n")
    return "\n".join(PROMPT.sub("", line) for line in lines if PROMPT.match(line)) if PROMPT.match(lines[0]) else code


def _dedented(code: str) -> str:
    """Without common indentation; the first line may have lost its own."""
    first, _, rest = code.partition("\n")
    fixed = textwrap.dedent(code).strip("\n")
    return fixed if parses(fixed) or not rest else first.strip() + "\n" + textwrap.dedent(rest)


def _without_label(code: str) -> str:
    """Without a language's name in the first line."""
    first, _, rest = code.lstrip("\n").partition("\n")
    return rest if rest and PYTHON.fullmatch(first.strip()) and parses(rest) else code


def _without_commands(code: str) -> str:
    """A notebook's cell without its commands to the shell and to IPython."""
    return COMMAND.sub(r"\1pass", code)


def _without_numbers(code: str) -> str:
    """Without the numbers of lines, where all have theirs."""
    lines = [line for line in code.split("\n") if line.strip()]
    found = [NUMBER.match(line) for line in lines]
    if not lines or not all(found):
        return code
    numbers = [int(match[1]) for match in found]
    if numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
        return code
    return "\n".join(line[match.end() :] for line, match in zip(lines, found, strict=True))


REPAIRS: tuple[Callable[[str], str], ...] = (
    _dedented,
    lambda code: code.translate(SPACES),
    lambda code: code.translate(QUOTES),
    lambda code: code.expandtabs(4),
    lambda code: code.expandtabs(8),
    _without_prompts,
    html.unescape,
    _without_commands,
    _without_numbers,
)


KINDS = fenced, marked, definitions_among_prose, session, inline, among_prose  # in the order in which they are tried
