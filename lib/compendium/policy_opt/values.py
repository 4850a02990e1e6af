"""Values as JSON, for two processes that do not trust each other: see `wire`. Standard library only.

Values of built-in types and of the standard library's data types are read back as equal values of the same types, with
what they share still shared, cycles included. Functions and classes of the modules in SHARED are named. Everything else
stays where it is and is *lent*: the other side gets a number by which to name it.

    None, True, "text", 1, 0.5          as in JSON
    ["int", "0x..."]                    a large whole number
    ["list", 1, ["tuple", 2]]           a container: its type, then what it holds
    ["again", 0], ["given", 0]          the same object as before: in this message, in the one that it answers
    ["global", "math", "sqrt"]          both sides have it
    ["yours", 3]                        what the reader has lent as number 3
"""

import builtins
import contextlib
import importlib
import math
import operator
import sys
import types

WHOLE = 1 << 53  # whole numbers from here on are sent as hexadecimal text
# Modules whose functions and classes are named instead of lent: both sides have the same, without side effects.
SHARED = frozenset(
    "builtins math cmath operator collections itertools functools string datetime decimal fractions statistics heapq "
    "bisect copy re json numbers array calendar textwrap collections.abc".split()
)
COLLECTIONS = "Counter", "OrderedDict", "defaultdict", "deque"
CONTAINERS = "list", "dict", "set", "bytearray", *COLLECTIONS  # which can change in a call
BASES = int, float, str, bytes, tuple, list, dict, set, frozenset
VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}


class Unsendable(BaseException):
    """A value that cannot be lent."""


def shared(module: str, name: str):
    """A function or class of the standard library by its name. Raises KeyError where it is not one of those shared."""
    if module not in SHARED or name.startswith("_"):
        raise KeyError(f"{module}.{name}")
    return vars(importlib.import_module(module))[name]


def plain(value):
    """An object of a class derived from a built-in type, as that built-in type."""
    for base in BASES:
        if isinstance(value, base):
            if base in (int, float, str):
                return {int: int.__int__, float: float.__float__, str: str.__str__}[base](value)
            return base(dict.items(value)) if base is dict else base(base.__iter__(value))
    raise TypeError(f"{type(value).__name__} is not derived from a built-in type")


def contents(value) -> list:
    """What a container holds; a mapping's pairs."""
    return list(value.items()) if isinstance(value, dict) else list(value)


def fill(value, items: list) -> None:
    """Make a container hold `items` instead."""
    if isinstance(value, (list, bytearray)):
        value[:] = items
    else:
        value.clear()
        if isinstance(value, dict):
            for key, item in items:
                value[key] = item
        else:
            (value.update if isinstance(value, set) else value.extend)(items)


def same(one: list, two: list) -> bool:
    """Whether two lists hold the same objects, or pairs of the same objects."""
    pairs = lambda a, b: type(a) is type(b) is tuple and len(a) == len(b) == 2 and all(map(operator.is_, a, b))
    return len(one) == len(two) and all(a is b or pairs(a, b) for a, b in zip(one, two, strict=True))


class Theirs:
    """Something of the other side's. Its one attribute says what, under a name that no program uses."""

    __slots__ = ("_theirs_",)

    def __init__(self, peer, number: int, **more):
        object.__setattr__(self, "_theirs_", types.SimpleNamespace(peer=peer, number=number, **more))


def names(kind: type) -> list:
    """Module and name of an exception's classes, from the most special to the most general."""
    return [[k.__module__, k.__qualname__] for k in kind.__mro__ if issubclass(k, BaseException)]


class Writer:
    """Values to JSON. seen: objects that the other side can name by position; then those written here."""

    def __init__(self, peer, given: list = ()):
        self.peer, self.seen = peer, list(given)
        self._places = {id(value): ["given", i] for i, value in enumerate(self.seen)}

    def write(self, value):
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int:
            return value if -WHOLE < value < WHOLE else ["int", hex(value)]
        if id(value) in self._places:
            return self._places[id(value)]
        if issubclass(kind, Theirs):
            return ["yours", value._theirs_.number]
        if kind.__name__ in CONTAINERS and kind is TYPES[kind.__name__]():
            return self._container(kind, value)
        if kind in (tuple, frozenset):
            return [kind.__name__, *map(self.write, value)]
        if kind in VIEWS:
            return [VIEWS[kind], *map(self.write, list(value))]
        return self._data(kind, value) or self._name(kind, value) or self.peer.lend(value)

    def _container(self, kind: type, value) -> list:
        self._places[id(value)] = ["again", len(self.seen)]
        self.seen.append(value)
        head = [kind.__name__]
        if kind.__name__ == "defaultdict":
            head.append(self.write(value.default_factory))
        elif kind.__name__ == "deque":
            head.append(value.maxlen)
        if isinstance(value, dict):
            return [*head, *([self.write(key), self.write(item)] for key, item in list(value.items()))]
        return [*head, *map(self.write, list(value))]

    def _data(self, kind: type, value) -> list | None:
        """The standard library's values that cannot change."""
        if kind is complex:
            return ["complex", value.real, value.imag]
        if kind is bytes:
            return ["bytes", value.decode("latin-1")]
        if kind is range or kind is slice:
            return [kind.__name__, *map(self.write, (value.start, value.stop, value.step))]
        where = f"{kind.__module__}.{kind.__qualname__}"
        if where == "decimal.Decimal":
            return ["Decimal", str(value)]
        if where == "fractions.Fraction":
            return ["Fraction", self.write(value.numerator), self.write(value.denominator)]
        if where == "datetime.timedelta":
            return ["timedelta", value.days, value.seconds, value.microseconds]
        zone = getattr(value, "tzinfo", None) if where in ("datetime.datetime", "datetime.time") else None
        fixed = zone is None or type(zone).__qualname__ == "timezone"
        if fixed and where in ("datetime.date", "datetime.datetime", "datetime.time"):
            return [kind.__name__, value.isoformat(), getattr(value, "fold", 0)]
        return None

    def _name(self, kind: type, value) -> list | None:
        """What both sides have: modules, functions and classes of the standard library, classes of exceptions."""
        if kind is types.ModuleType and value.__name__ in SHARED and sys.modules.get(value.__name__) is value:
            return ["module", value.__name__]
        if kind is type or kind in (types.BuiltinFunctionType, types.FunctionType) or isinstance(value, type):
            module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
            if isinstance(module, str) and isinstance(name, str):
                module = module.removeprefix("_")  # as in _operator, _functools, _heapq
                with contextlib.suppress(KeyError):
                    if shared(module, name) is value and name not in self.peer.kept:
                        return ["global", module, name]
            if isinstance(value, type) and issubclass(value, BaseException):
                return ["exception", names(value)]
        return ["ellipsis"] if value is Ellipsis else ["notimplemented"] if value is NotImplemented else None


class Reader:
    """JSON to values. given: the other side's positions; made: objects made here that can change."""

    def __init__(self, peer, given: list = ()):
        self.peer, self.given, self.made = peer, given, []

    def read(self, what):
        """A value. Whatever the other side sent, nothing is run but the constructors of built-in and data types; raises
        some Exception where it is not a value."""
        if not isinstance(what, list):
            if isinstance(what, dict):
                raise ValueError("not a value")
            return math.nan if what != what else what  # so that [nan] equals [math.nan], as it does in one process
        kind, *rest = what
        if kind in CONTAINERS:
            return self._container(kind, rest)
        if kind in ("tuple", "frozenset", "complex", "range", "slice", "Decimal", "Fraction", "timedelta"):
            items = [self.read(item) for item in rest]
            return TYPES[kind]()(items) if kind in ("tuple", "frozenset") else TYPES[kind]()(*items)
        if kind in VIEWS.values():
            items = [self.read(item) for item in rest]
            pairs = {"keys": [(item, None) for item in items], "values": enumerate(items), "items": items}[kind]
            return getattr(dict(pairs), kind)()
        if kind in ("date", "datetime", "time"):
            moment, fold = TYPES[kind]().fromisoformat(rest[0]), rest[1]
            return moment.replace(fold=fold) if fold else moment
        return SIMPLE[kind](self, *rest) if kind in SIMPLE else self.peer.borrow(kind, *rest)

    def _container(self, kind: str, rest: list):
        made = TYPES[kind]()(**({"maxlen": rest.pop(0)} if kind == "deque" else {}))
        self.made.append(made)  # before what it holds, which may be itself
        if kind == "defaultdict":
            made.default_factory = self.read(rest.pop(0))
        if isinstance(made, dict):
            rest = [(self.read(key), self.read(item)) for key, item in rest]
        else:
            rest = [self.read(item) for item in rest]
        fill(made, rest)
        return made


def _module(name: str):
    if name not in SHARED:
        raise KeyError(name)
    return importlib.import_module(name)


TYPES = {name: lambda name=name: getattr(builtins, name) for name in "list dict set bytearray tuple frozenset".split()}
TYPES |= {name: lambda name=name: getattr(builtins, name) for name in ("complex", "range", "slice")}
TYPES |= {name: lambda name=name: shared("collections", name) for name in COLLECTIONS}
TYPES |= {name: lambda name=name: shared("datetime", name) for name in ("date", "datetime", "time", "timedelta")}
TYPES |= {"Decimal": lambda: shared("decimal", "Decimal"), "Fraction": lambda: shared("fractions", "Fraction")}
SIMPLE = {
    "int": lambda reader, text: int(text, 16),
    "bytes": lambda reader, text: text.encode("latin-1"),
    "ellipsis": lambda reader: Ellipsis,
    "notimplemented": lambda reader: NotImplemented,
    "given": lambda reader, i: reader.given[i],
    "again": lambda reader, i: reader.made[i - len(reader.given)],
    "yours": lambda reader, number: reader.peer.lent[number],
    "module": lambda reader, name: _module(name),
    "global": lambda reader, module, name: reader.peer.shared(module, name),
    "exception": lambda reader, classes: reader.peer.exception(classes),
}
