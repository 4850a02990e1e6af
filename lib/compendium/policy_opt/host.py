"""The program's end: runs it, and then does what the judge asks of it. Standard library only.

This process knows no test. It is told the calls that tests make, one by one, and answers with the values it finds.
"""

import builtins
import os
import sys
import types

from compendium.policy_opt.values import BASES, Theirs, names, plain
from compendium.policy_opt.wire import Broken, Peer

# Built-in functions that reach beyond their arguments: if a program returns one, the judge does not call its own.
REACHING = frozenset(
    "exec eval compile open input print breakpoint help exit quit globals locals vars dir getattr setattr delattr "
    "__import__ __build_class__ id memoryview object super property classmethod staticmethod".split()
)
NAME = "program"  # what __name__ is: not "__main__", so that main guards stay closed, as in the usual graders
SERVICES = "run", "defined", "look_up", "plain", "test", "end"
FINISHED, LEFT, FAILED, MEMORY = "finished", "left", "error", "memory"


class Host(Peer):
    """The judge's calls, answered. The functions that it begins with have the numbers of SERVICES."""

    kept = REACHING

    def __init__(self, reading: int, writing: int):
        super().__init__(reading, writing)
        self.module = types.ModuleType(NAME)
        self.space = vars(self.module)
        self.space["__file__"] = f"<{NAME}>"
        self.ended = False
        self._exec, self._compile, self._stat, self._show = exec, compile, os.fstat, sys.excepthook
        self._builtins = dict(vars(builtins))
        for service in SERVICES:
            self.number(plain if service == "plain" else getattr(self, service))

    def run(self, setup: str, code: str) -> str:
        """Run the program: one of the states above. A setup that needs the program's names is run after it."""
        sys.modules[NAME] = sys.modules["__main__"] = self.module  # for dataclasses, pickle, typing and the like
        sys.argv = [f"<{NAME}>"]
        builtins.exit = builtins.quit = sys.exit  # which `site` would have set
        late = False
        try:
            try:
                self._run(setup, "<setup>")
            except NameError:
                late = True
            self._run(code, f"<{NAME}>")
            if late:
                self._run(setup, "<setup>")
        except MemoryError:
            return MEMORY
        except (SystemExit, EOFError):  # it left, or asked for input, of which there is none
            self._show(*sys.exc_info())
            return LEFT
        except BaseException:
            self._show(*sys.exc_info())
            return FAILED
        return FINISHED

    def _run(self, source: str, name: str) -> None:
        self._exec(self._compile(source.removeprefix("\ufeff"), name, "exec", dont_inherit=True), self.space)

    def defined(self, name: str) -> bool:
        """Whether the program has a global name of its own."""
        return name in self.space

    def look_up(self, name: str):
        """The value of one of the program's global names. Raises NameError."""
        if name not in self.space:
            raise NameError(f"name {name!r} is not defined")
        return self.space[name]

    def test(self, source: str, name: str) -> bool:
        """Run a test here, with the built-in functions put back."""
        vars(builtins).update(self._builtins)
        try:
            self._run(source, name)
        except BaseException:
            self._show(*sys.exc_info())
            return False
        return True

    def end(self) -> None:
        """Write out what is left. Raises OSError where that cannot be done."""
        self.ended = True
        sys.stdout.flush()
        sys.stderr.flush()
        self._stat(1), self._stat(2)

    def lend(self, value) -> list:
        kind = type(value)
        base = next((base.__name__ for base in BASES if issubclass(kind, base)), "")
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["exception", names(value)]
        where = f"{kind.__module__}.{kind.__qualname__}" if not base else f"builtins.{base}"
        return ["lent", self.number(value), where, base, callable(value)]

    def borrow(self, kind: str, number: int):
        return {"function": Function, "iterator": Iterator}[kind](self, number)

    def serve(self) -> None:
        """Answer until the end."""
        while not self.ended:
            try:
                self.answer(self.receive())
            except Broken:
                return


class Function(Theirs):
    """A function of the judge's."""

    def __call__(self, *arguments, **keywords):
        return self._theirs_.peer.call(self, *arguments, **keywords)


class Iterator(Theirs):
    """An iterator of the judge's."""

    def __iter__(self):
        return self

    def __next__(self):
        return self._theirs_.peer.call(self)
