"""The program in a completion, however it is presented.

    program("Sure!\\n~~~python title='x'\\ndef f(x):\\n    return x\\n~~~\\nIt returns x.", names=("f",))

A completion is searched for *blocks*, in this order; the first kind that gives any is used:

1. Fenced code as in CommonMark: at least three backticks or tildes, an info string, to a fence that is as long, or to
   the end. Beyond CommonMark, a fence may be indented by any amount, stand in a quotation, have code on its own line or
   close at the end of a line of code; and a block that is no Python where it closes, but is at a later fence, goes on
   to there: its docstring holds a fence.
2. Text between markers: [PYTHON] and [/PYTHON], [BEGIN] and [DONE], <code> and </code>, BEGIN and END, and the like.
3. The lines among prose that are Python, if they define something; lines after the prompt `>>> `; inline code.

Of fenced blocks, those said to be Python come before those with no language and these before others; blocks said to be
output or a shell's are left out. What is no Python as it stands is repaired if it is after one of these: indentation
taken away, prompts and their output, spaces and quotes as word processors write them, tabs, HTML's entities, a cell's
commands (`!pip install`, `%time`), numbers of lines.

**Which blocks make the program:** for each name that tests use, the last block that defines it, so that a correction
counts and not the draft; and before it, blocks that define what it uses. Without names, or where no block defines one,
all blocks that define functions or classes, or else the first. A text without any of these is the program itself.
"""

import builtins
import re
import symtable
from collections.abc import Sequence

from compendium.policy_opt import blocks
from compendium.policy_opt.blocks import Block

FUTURE = re.compile(r"^from __future__ import .*$", re.MULTILINE)


def program(text: str, names: Sequence[str] = ()) -> str:
    """The program in a completion, by the rules above. names: what tests use of it, see `names_used`."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    tree = blocks.tree_of(text)
    if tree and not any(map(blocks.is_remark, tree.body)) and not re.search(r"^\s*~{3}", text, re.MULTILINE):
        return text
    empty = text
    for find in blocks.KINDS:
        found = find(text)
        if any(block.code.strip() for block in found):
            return _chosen(found, names)
        empty = "" if found else empty
    return blocks.repaired(empty)


def names_used(tests: Sequence[str], setup: str = "") -> tuple[str, ...]:
    """Names that tests take from a program: global ones that neither they nor the setup define."""
    given = set(dir(builtins)) | defined(setup)
    found = {}
    for test in tests:
        found |= dict.fromkeys(sorted(free(test) - given - defined(test)))
    return tuple(found)


def _table(code: str) -> symtable.SymbolTable | None:
    try:
        return symtable.symtable(code, "<program>", "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def defined(code: str) -> set[str]:
    """Global names that code gives a value, by whatever statement; none where it is no Python."""
    table = _table(code)
    if table is None:
        return set()
    return {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}


def free(code: str) -> set[str]:
    """Global names that code uses, in functions too, whether or not it defines them; none where it is no Python."""
    table, found = _table(code), set()
    tables = [] if table is None else [table]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        at_top = table.get_type() == "module"
        found |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (at_top or s.is_global())}
    return found


def _chosen(found: list[Block], names: Sequence[str]) -> str:
    """The blocks that make the program, joined in their order."""
    best = [block for block in found if block.rank == min(block.rank for block in found)]
    tries = [(best, names), (found, names), (best, ()), (found, ())]
    for some, wanted in tries if names else tries[2:]:
        codes = [block.code for block in some]
        gives = {i: defined(code) for i, code in enumerate(codes) if blocks.parses(code)}
        taken = {_maker(name, len(codes), gives) for name in wanted} - {None}
        if not wanted:
            taken = {i for i in gives if blocks.defines(codes[i])}
        if taken:
            break
    else:
        good = [block.code for block in best if blocks.parses(block.code)]
        return (good or [best[0].code])[0]
    waiting = list(taken)
    while waiting:
        user = waiting.pop()
        for name in sorted(free(codes[user]) - gives[user] - set(dir(builtins))):
            maker = _maker(name, user, gives)
            if maker is not None and not any(name in gives.get(i, ()) for i in taken):
                taken.add(maker)
                waiting.append(maker)
    return _joined([codes[i] for i in sorted(taken)])


def _maker(name: str, before: int, gives: dict[int, set[str]]) -> int | None:
    """The last block before another that defines a name; otherwise the last of all; None where none does."""
    makers = [i for i, names in gives.items() if name in names]
    return max([i for i in makers if i < before] or makers, default=None)


def _joined(codes: list[str]) -> str:
    """Several blocks as one, imports from the future first, as they have to be."""
    if len(codes) == 1:
        return codes[0]
    code = "\n\n".join(code.strip("\n") for code in codes) + "\n"
    future = FUTURE.findall(code)
    return "".join(f"{line}\n" for line in future) + FUTURE.sub("", code)
