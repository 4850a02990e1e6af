"""Calls between the judge's process and the program's, of which neither runs the other's code. Standard library only.

Messages are JSON (see `values`) behind their length. A call may be answered by a call the other way, as when a test
hands the program a function.

| message | meaning |
| --- | --- |
| `["call", function, arguments, keywords]` | call it and answer with one of the next two |
| `["value", value, changes]` | what it returned; how it changed arguments that can be changed |
| `["raise", names, arguments, attributes, text]` | what it raised: the names of its classes, the traceback |
"""

import _thread
import json
import os
import sys

from compendium.policy_opt.values import SHARED, Reader, Unsendable, Writer, contents, fill, names, same, shared

LIMIT = 32 << 20  # bytes a message may have


class Broken(BaseException):
    """The other side broke off or does not keep to the protocol."""


class Peer:
    """One end. `lend` and `borrow` say what happens to values that cannot be sent, `allowed` what the other side may
    have called, `kept` which built-in functions are never sent by name."""

    kept = frozenset()

    def __init__(self, reading: int, writing: int):
        self.reading, self.writing = reading, writing
        self.lent = []
        self._numbers = {}  # of `lent`, by identity
        self._classes = {}  # of exceptions that only the other side has, by name
        self._turn = _thread.RLock()  # a program's threads may call
        # What is used later is kept here: the program may put others in their place.
        self._dumps, self._loads, self._to, self._from = json.dumps, json.loads, os.write, os.read

    # Messages ----------------------------------------------------------------------------------------------------

    def packed(self, message: list) -> bytes:
        """A message as it is sent. Raises ValueError or RecursionError where it cannot be."""
        data = self._dumps(message).encode()
        if len(data) > LIMIT:
            raise ValueError(f"a value of {len(data) >> 20} MiB is too large to be judged: {LIMIT >> 20} are allowed")
        return len(data).to_bytes(8, "little") + data

    def send(self, message: list | bytes) -> None:
        """Send a message, packed or not. Raises Broken."""
        data = memoryview(message if isinstance(message, bytes) else self.packed(message))
        try:
            while data:
                data = data[self._to(self.writing, data) :]
        except OSError as error:
            raise Broken(f"nobody listens: {error}") from None

    def receive(self) -> list:
        size = int.from_bytes(self._exactly(8), "little")
        if size > LIMIT:
            raise Broken(f"a message of {size} bytes")
        try:
            return self._loads(self._exactly(size))
        except (ValueError, RecursionError) as error:
            raise Broken(f"not a message: {error}") from None

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            parts.append(self._from(self.reading, min(size, 1 << 20)))
            size -= len(parts[-1])
            if not parts[-1]:
                raise Broken("the other side has left")
        return b"".join(parts)

    def call(self, function, *arguments, **keywords):
        """Have the other side call a function of its own, or a shared one."""
        writer = Writer(self)
        with self._turn:
            try:
                self.send(["call", *(writer.write(part) for part in (function, list(arguments), keywords))])
            except RecursionError:
                raise Unsendable("a value nested too deeply") from None
            while True:
                message = self.receive()
                try:
                    kind, *rest = message
                    if kind == "value":
                        return self._take(writer.seen, *rest)
                    error = self._error(*rest) if kind == "raise" else None
                except Exception as trouble:
                    raise Broken(f"not an answer: {trouble!r}") from None
                if error is not None:
                    raise error
                self.answer(message)

    def _take(self, given: list, value, changes: list):
        reader = Reader(self, given)
        for i, items in changes:
            fill(given[i], reader.read(items))
        return reader.read(value)

    def answer(self, message: list) -> None:
        """Do what a message asks and answer."""
        try:
            kind, function, arguments, keywords = message
            if kind != "call" or not self.allowed(function):
                raise Broken("not a call that is allowed")
            reader = Reader(self)
            function, arguments, keywords = (reader.read(part) for part in (function, arguments, keywords))
            before = [contents(value) for value in reader.made]
            if not callable(function):
                function = function.__next__
        except Exception as error:
            raise Broken(f"not a call: {error!r}") from None
        try:
            value = function(*arguments, **keywords)
            writer = Writer(self, reader.made)
            changes = [
                [i, writer.write(contents(made))]
                for i, (made, was) in enumerate(zip(reader.made, before, strict=True))
                if not same(contents(made), was)
            ]
            try:
                answer = self.packed(["value", writer.write(value), changes])
            except RecursionError:  # too deep to be sent
                answer = ["value", self.lend(value), []]
            with self._turn:
                self.send(answer)
        except (Broken, Unsendable):
            raise
        except BaseException as error:
            answer = self._raised(error)
            with self._turn:
                self.send(answer)

    def allowed(self, function) -> bool:
        return True

    def shared(self, module: str, name: str):
        return shared(module, name)

    def lend(self, value) -> list:
        """Let the other side name a value by a number."""
        raise Unsendable(type(value).__name__)

    def borrow(self, *what):
        """What stands for a value that the other side lends."""
        raise Broken("nothing can be lent to this side")

    def number(self, value) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.lent)
            self.lent.append(value)  # which keeps it, and so its identity
        return self._numbers[id(value)]

    # Exceptions --------------------------------------------------------------------------------------------------

    def _raised(self, error: BaseException) -> bytes:
        writer = Writer(self)
        attributes = {name: value for name, value in vars(error).items() if name != "__notes__"}
        try:
            import traceback  # which takes longer than most tests

            text = "".join(traceback.format_exception(error))[-5000:]
            parts = writer.write(list(error.args)), writer.write(attributes), text
            return self.packed(["raise", names(type(error)), *parts])
        except Exception:
            return self.packed(["raise", names(type(error)), ["list"], ["dict"], ""])

    def _error(self, classes: list, arguments: list, attributes: list, text: str) -> BaseException:
        kind, reader = self.exception(classes), Reader(self)
        error = kind.__new__(kind, *reader.read(arguments))
        for name, value in reader.read(attributes).items():
            if not name.startswith("__"):
                setattr(error, name, value)
        error.add_note(f"In the program:\n{text}")
        return error

    def exception(self, classes: list) -> type:
        """The class of exceptions with these names, from the most special to the most general."""
        own = []
        for module, name in classes:
            found = vars(sys.modules[module]).get(name) if module in SHARED and module in sys.modules else None
            if isinstance(found, type) and issubclass(found, BaseException):
                break
            own.append((str(module), str(name)))
        else:
            raise KeyError("no known exception")
        for key in reversed(own):
            if key not in self._classes or not issubclass(self._classes[key], found):
                self._classes[key] = type(key[1], (found,), {"__module__": key[0]})
            found = self._classes[key]
        return found
