"""The judge's end: runs the tests, where the program's names stand for what lies in the program's process.

A test such as `assert f(2) == 4` runs here. `f` is a stand-in: calling it sends the argument to the program, which
sends back what its function returns, as plain data (see `values`). The comparison is made here; the program neither
sees the expected value nor can it reach this process, so only a function that finds the value passes. Whatever the
program puts in place of `exec`, `len` or `==` changes what it sends, not how that is judged.

A name is looked up in the test, in the setup, which this process has run as well, among the built-in functions and the
standard library's modules, and only then in the program. One that was asked to write `sum`, say, is asked for it where
a test names nothing else of the program's.

A list or dictionary is brought up to date for its owner when the call that it was given to ends; one that the program
keeps for later calls, or has given out, is a copy from then on, and neither side sees the other's changes.

Objects of the program's own classes stay with it: see `standin`. Tests of what a process is (see PROCESS), and those
that hand over objects which cannot be sent, run in the program's process; two objects of the program's are compared by
the program. `run` tells which tests rest in this way on the program's word.
"""

import ast
import builtins
import sys
import types
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from compendium.policy_opt import host
from compendium.policy_opt.standin import Remote, made_for
from compendium.policy_opt.standin import isinstance_ as isinstance_of_stand_ins
from compendium.policy_opt.standin import type_ as type_of_stand_ins
from compendium.policy_opt.values import SHARED, Theirs, Unsendable, shared
from compendium.policy_opt.wire import Broken, Peer

# Names in a test that make it one of the process in which the program runs.
PROCESS = frozenset(
    "os sys io gc random signal asyncio threading concurrent multiprocessing subprocess inspect unittest pytest "
    "contextlib logging warnings shutil pickle weakref tracemalloc dataclasses enum abc get_type_hints globals locals "
    "input exec eval compile __import__ __name__ __file__ __builtins__ builtins".split()
)
CONSTANTS = "maxsize", "float_info", "version_info"  # of sys, which are the same here
# Built-in functions with which tests look at a result; not what a program was asked to write, if there is another.
LOOKING = frozenset(
    "set sorted list tuple dict frozenset str repr int float bool bytes len abs round isinstance type all any zip map "
    "range enumerate".split()
)
CLASS_MAKERS = "namedtuple", "NamedTuple", "TypedDict", "Enum", "IntEnum", "make_dataclass", "NewType", "TypeVar"


class Judge(Peer):
    """trusting: a verdict rests on the program's word. unsendable: a test has to run in the program's process.
    failure: how the program broke off, if it did: a test's own `except:` must not hide it."""

    def __init__(self, reading: int, writing: int):
        super().__init__(reading, writing)
        self.trusting = self.unsendable = False
        self.failure = None
        self._stand_ins = {}
        for number, name in enumerate(host.SERVICES):
            setattr(self, f"ask_{name}", partial(self.call, Theirs(self, number)))

    def call(self, function, *arguments, **keywords):
        try:
            return super().call(function, *arguments, **keywords)
        except Broken as error:
            self.failure = self.failure or error
            raise
        except Unsendable:
            self.unsendable = True
            raise

    def allowed(self, function) -> bool:
        return isinstance(function, list) and function[0] == "yours"

    def shared(self, module: str, name: str):
        if module == "builtins" and name in host.REACHING:
            raise KeyError(name)
        return shared(module, name)

    def lend(self, value) -> list:
        if callable(value) and not isinstance(value, type):
            return ["function", self.number(value)]
        if hasattr(type(value), "__next__"):
            return ["iterator", self.number(value)]
        raise Unsendable(f"an object of type {type(value).__name__}")

    def borrow(self, tag: str, number: int, kind: str, base: str, call: bool) -> Remote:
        if tag != "lent" or type(number) is not int:
            raise ValueError(f"not a value: {tag}")
        if number not in self._stand_ins:
            self._stand_ins[number] = made_for(self, number, kind, base, call)
        return self._stand_ins[number]


class Space(dict):
    """Global names of the tests. Asks the program for what is not here; `written`: what it was asked to write although
    there is a built-in function of that name."""

    def __init__(self, judge: Judge):
        super().__init__(
            __name__=host.NAME, __builtins__=builtins, type=type_of_stand_ins, isinstance=isinstance_of_stand_ins
        )
        self.judge, self.written, self.asked, self.modules = judge, None, {}, frozenset()
        self.told = False  # whether anything here may have come from the program

    def __missing__(self, name: str):
        if name != self.written and hasattr(builtins, name):
            raise KeyError(name)  # Python goes on to the built-in functions
        if name in self.modules:
            return __import__(name)
        if name not in self.asked:
            self.told = True
            try:
                found = self.judge.ask_look_up(name)
            except NameError:
                raise KeyError(name) from None
            if not isinstance(found, Remote):
                return found  # data may have changed the next time
            self.asked[name] = found
        return self.asked[name]

    def begin(self, names: "Names") -> None:
        """Prepare for a test with these names."""
        self.modules, self.written = names.modules, None
        self.asked.clear()
        if all(name in self or hasattr(builtins, name) or name in self.modules for name in names.taken):
            found = [name for name in names.taken if hasattr(builtins, name) and name not in self]
            found = [name for name in found if name not in LOOKING] or (found if len(found) == 1 else [])
            self.written = next((name for name in found if self.judge.ask_defined(name) is True), None)


class Names(NamedTuple):
    """Names in a test: global ones that it takes from elsewhere, as they come; of these, the standard library's modules
    (it takes attributes of them only: a function may have such a name); all names, and modules that it imports."""

    taken: list[str]
    modules: frozenset[str]
    all: set[str]


def names_in(tree: ast.AST) -> Names:
    """The names in a test."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    constant = {node.value for node in attributes if node.attr in CONSTANTS}
    bound, imported, named = set(), set(), {node.id for node in nodes if node not in constant}
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            imported |= {node.asname or node.name.partition(".")[0]}
            named |= {node.name.partition(".")[0]} - ({"sys"} if node.asname is None else set())
        elif isinstance(node, ast.ImportFrom):
            named.add((node.module or "").partition(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
    bound |= {node.id for node in nodes if not isinstance(node.ctx, ast.Load)}
    ordered = sorted((n for n in nodes if isinstance(n.ctx, ast.Load)), key=lambda n: (n.lineno, n.col_offset))
    taken = [n.id for n in ordered if n.id not in bound | imported]
    named |= {node.attr for node in attributes if node.attr == "get_type_hints"}
    whole = {node.value for node in attributes}
    modules = (SHARED | {"sys"}).intersection(taken).difference(node.id for node in nodes if node not in whole)
    return Names(list(dict.fromkeys(taken)), modules, named)


def shown() -> str:
    """The traceback of the exception being handled; the program, asked for a text, may fail as well."""
    try:
        import traceback  # which takes longer than most tests

        return traceback.format_exc()
    except BaseException as error:
        return f"{type(error).__name__} while an exception was shown\n"


def run(judge: Judge, setup: str, code: str, tests: Sequence[str]) -> tuple[str, list[bool], list[bool], str]:
    """(status, passed, judged here, complaints). Raises Broken when the program ends before it is asked to."""
    status = judge.ask_run(setup, code)
    passed, here, complaints = [False] * len(tests), [True] * len(tests), []
    if status not in (host.FINISHED, host.LEFT):
        return host.MEMORY if status == host.MEMORY else host.FAILED, passed, here, ""
    space, compiled = Space(judge), {}
    movable = _set_up(space, setup)
    for i, test in enumerate(tests):
        try:
            compiled[i] = compile(test, f"<test {i + 1}>", "exec", dont_inherit=True), names_in(ast.parse(test))
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            complaints.append(shown())
    needed = {name for _, names in compiled.values() for name in names.taken if name not in space}
    if status == host.LEFT and not any(judge.ask_defined(name) is True for name in sorted(needed)):
        return host.FAILED, passed, here, ""
    for i, (made, names) in compiled.items():
        judge.trusting = judge.unsendable = not movable or not PROCESS.isdisjoint(names.all)
        if not judge.unsendable:
            space.begin(names)
            try:
                exec(made, space)
                passed[i] = True
            except BaseException:
                complaints.append("" if judge.unsendable else shown())
        if judge.failure:
            raise judge.failure
        if judge.unsendable:
            judge.trusting, passed[i] = True, judge.ask_test(tests[i], f"<test {i + 1}>") is True
        here[i] = not judge.trusting
    judge.ask_end()
    return host.FINISHED, passed, here, "".join(complaints)


def status_of(error: BaseException) -> str:
    """What to call the end of a run that the judge cannot finish."""
    return host.MEMORY if isinstance(error, MemoryError) else host.FAILED


def _set_up(space: Space, setup: str) -> bool:
    """Run the setup here as well, but for its classes, whose objects have to be the program's. False: it only works in
    the program's process. Raises what it raises once it has asked the program for something."""
    body = [node for node in ast.parse(setup).body if not (isinstance(node, ast.ClassDef) or _makes_class(node))]
    said, sys.stdout = sys.stdout, types.SimpleNamespace(write=len, flush=lambda: None)  # the program says it too
    try:
        exec(compile(ast.Module(body, []), "<setup>", "exec", dont_inherit=True), space)
    except Unsendable:
        return False
    except Exception:
        if space.told:
            raise
        return False
    finally:
        sys.stdout = said
    return True


def _makes_class(node: ast.stmt) -> bool:
    """Whether a statement is like `Point = namedtuple("Point", "x y")`."""
    made = node.value.func if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) else None
    return getattr(made, "attr", getattr(made, "id", None)) in CLASS_MAKERS
