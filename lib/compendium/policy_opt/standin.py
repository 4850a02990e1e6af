"""Stand-ins, in the judge's process, for objects of the program's that cannot be sent. Standard library only.

A stand-in asks the program for attributes, items, lengths, texts and method results, which arrive as data, or as
stand-ins again. One rule keeps verdicts with the judge: **no value of a test is given to an operator of the program's
that answers with a truth value or a number**, for an object could then answer "equal", "contained" or "no difference"
whatever the test expects. So a stand-in equals no plain value, whatever its `==` says; `in` looks through its items;
arithmetic with a test's value may give an object, which cannot be made a number or a truth value. Objects of classes
derived from a built-in type, named tuples among them, are compared as values of that type.

Two stand-ins are compared by the program, and a method may answer as it likes to a value of the test: the judge is told
that it trusts the program's word.
"""

import copy
import operator
import types
from collections.abc import Callable

from compendium.policy_opt.values import Theirs, Unsendable

KINDS = {  # what `isinstance` takes stand-ins for
    f"builtins.{kind.__name__}": kind
    for kind in (
        int,
        float,
        str,
        bytes,
        tuple,
        list,
        dict,
        set,
        frozenset,
        type,
        types.FunctionType,
        types.MethodType,
        types.GeneratorType,
        types.CoroutineType,
        types.ModuleType,
    )
}


class Remote(Theirs):
    """An object of the program's."""

    __slots__ = ()

    def __getattr__(self, name: str):
        found = _ask(self, getattr, name)
        if isinstance(found, Remote):
            found._theirs_.method = True
        return found

    def __setattr__(self, name: str, value) -> None:
        _ask(self, setattr, name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, delattr, name)

    def __eq__(self, other):
        return True if self is other else _compared(self, operator.eq, other)

    def __hash__(self) -> int:
        return _ask(self, hash)

    def __contains__(self, value) -> bool:
        if isinstance(value, Remote) and not value._theirs_.base:
            self._theirs_.peer.trusting = True
            return _ask(self, operator.contains, value) is True
        return any(value is item or value == item for item in iter(self))

    def __instancecheck__(self, value) -> bool:
        return isinstance(value, Remote) and _ask(value, isinstance, self) is True

    def __subclasscheck__(self, value) -> bool:
        return isinstance(value, Remote) and _ask(value, issubclass, self) is True

    def __mro_entries__(self, bases):
        self._theirs_.peer.unsendable = True
        raise Unsendable("a class of the test's, derived from one of the program's")

    def __enter__(self):
        return _ask(self, getattr, "__enter__")()

    def __exit__(self, *how) -> None:
        _ask(self, getattr, "__exit__")(None, None, None)

    def __copy__(self):
        return _ask(self, copy.copy)

    def __deepcopy__(self, memo):
        return _ask(self, copy.deepcopy)

    __class__ = property(lambda self: KINDS.get(self._theirs_.kind) or _ask(self, type))
    __doc__ = property(lambda self: _ask(self, getattr, "__doc__"))


class RemoteCallable(Remote):
    """A function or class of the program's, or another object that can be called."""

    __slots__ = ()

    def __call__(self, *arguments, **keywords):
        """What the program returns. An end of iteration is an error in a call: it would end a test's own loop."""
        try:
            found = self._theirs_.peer.call(self, *arguments, **keywords)
        except StopIteration as error:
            raise RuntimeError("a function of the program raised StopIteration") from error
        if self._theirs_.method and (arguments or keywords) and isinstance(found, (bool, int, float)):
            self._theirs_.peer.trusting = True
        return found


def made_for(peer, number: int, kind: str, base: str, call: bool) -> Remote:
    """The stand-in for object `number`. kind: module and name of its class; base: the built-in type that this derives
    from, or ""; call: whether it can be called."""
    return (RemoteCallable if call else Remote)(peer, number, kind=str(kind), base=str(base), mixed=False, method=False)


def _ask(stand_in: Remote, function: Callable, *arguments):
    return stand_in._theirs_.peer.call(function, stand_in, *arguments)


def _plain(value):
    """A stand-in for an object derived from a built-in type as that type; other values as they are."""
    if not isinstance(value, Remote) or not value._theirs_.base:
        return value
    found = value._theirs_.peer.ask_plain(value)
    if isinstance(found, Remote):
        raise TypeError("the program does not say what value an object has")
    return found


def _compared(stand_in: Remote, function: Callable, other):
    if stand_in._theirs_.base:
        return function(_plain(stand_in), _plain(other))
    if isinstance(other, Remote) and not other._theirs_.base:
        stand_in._theirs_.peer.trusting = True
        return _ask(stand_in, function, other) is True
    return NotImplemented


def _computed(stand_in: Remote, function: Callable, *operands):
    """Arithmetic. `mixed` marks what came out of it together with a value of the test."""
    if all(not isinstance(operand, Remote) or operand._theirs_.base for operand in operands):
        return function(*map(_plain, operands))
    found = stand_in._theirs_.peer.call(function, *operands)
    if all(isinstance(operand, Remote) and not operand._theirs_.mixed for operand in operands):
        return found
    if not isinstance(found, Remote):
        raise TypeError("a plain value came out of the program's own arithmetic with a value of the test")
    found._theirs_.mixed = found._theirs_.peer.trusting = True
    return found


def _in_place(stand_in: Remote, function: Callable, other):
    """`+=` and the like. Where a class is derived from a built-in type, Python goes on to `+`."""
    return NotImplemented if stand_in._theirs_.base else _computed(stand_in, function, stand_in, other)


def _converted(stand_in: Remote, function: Callable, *arguments):
    if stand_in._theirs_.mixed:
        raise TypeError(f"{function.__name__}() of the program's own arithmetic with a value of the test")
    return _ask(stand_in, function, *arguments)


def _add_special_methods() -> None:
    """Those that Python looks up in the class."""
    for name in "add sub mul matmul truediv floordiv mod pow lshift rshift and or xor".split():
        function = getattr(operator, f"__{name}__")
        setattr(Remote, f"__{name}__", lambda self, other, f=function: _computed(self, f, self, other))
        setattr(Remote, f"__r{name}__", lambda self, other, f=function: _computed(self, f, other, self))
        function = getattr(operator, f"__i{name}__")
        setattr(Remote, f"__i{name}__", lambda self, other, f=function: _in_place(self, f, other))
    for name in "lt le gt ge".split():
        function = getattr(operator, name)
        setattr(Remote, f"__{name}__", lambda self, other, f=function: _compared(self, f, other))
    for function in (
        operator.neg,
        operator.pos,
        operator.invert,
        operator.index,
        reversed,
        abs,
        bool,
        int,
        float,
        complex,
        len,
        repr,
        str,
        dir,
        iter,
        next,
        round,
        format,
        operator.getitem,
        operator.setitem,
        operator.delitem,
    ):
        setattr(Remote, f"__{function.__name__}__", lambda self, *rest, f=function: _converted(self, f, *rest))


_add_special_methods()


def type_(*arguments):
    """`type`, of stand-ins too."""
    stands = len(arguments) == 1 and isinstance(arguments[0], Remote)
    return _ask(arguments[0], type) if stands else type(*arguments)


def isinstance_(value, kinds) -> bool:
    """`isinstance`, of stand-ins and classes that only the program has."""
    if not isinstance(value, Remote) or any(kinds is kind for kind in KINDS.values()):
        return isinstance(value, kinds)
    return _ask(value, isinstance, kinds) is True
