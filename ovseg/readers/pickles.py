"""Reading pickles without unpickling: a small machine of our own that only ever collects.

A pickle is a program. Python's reader runs it: it calls what the program names and hands it states
to take on, and even `numpy.dtype` takes on one that turns bytes into addresses. The machine here
knows the same instructions, but it makes only numbers, texts, lists and dictionaries. A name is a
pair of texts that is looked up in a table of plain functions of ours (`Makers`); each checks a
description and builds what it describes, so that no constructor sees an argument from the file.
Lengths are compared with what the file holds, the memo is a dictionary, and steps are counted.
"""

from __future__ import annotations

import codecs
import io
import mmap
import os
import pickle
import pickletools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ovseg.readers.files import open_regular
from ovseg.readers.limits import LimitError, limits, require_within

__all__ = ["PLAIN", "PLAIN_DATA_ERRORS", "Machine", "Makers", "Name", "read_pickle"]


class Name(NamedTuple):
    """A name that a pickle asks for; nothing is imported."""

    module: str
    name: str


Makers = Mapping[tuple[str, str], Callable[..., Any]]
# What plain code raises on a description that makes no sense.
PLAIN_DATA_ERRORS = (EOFError, ValueError, TypeError, LookupError, AttributeError, OverflowError)

_READERS = {
    op.code.encode("latin1"): (op.name, op.arg.reader if op.arg else None)
    for op in pickletools.opcodes
}
_MARK: Any = object()
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_ALWAYS_USABLE = 1 << 24
_MOST_IN_KEY = 16
_SCALARS = (str, bytes, int, float, bool, type(None), Name)
# Instructions that only push their argument.
_DATA = frozenset(
    (
        *("FLOAT", "BINFLOAT", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


def read_pickle(path: Path, makers: Makers) -> Any:
    """Read a pickle that holds only containers, numbers, strings and what `makers` make.

    Args:
        path: a file that `pickle.dump` wrote, by Python 2 or 3.
        makers: the names that are allowed.

    Returns:
        The object; texts of Python 2 as latin-1.

    Raises:
        OSError: the file cannot be read.
        pickle.UnpicklingError: it asks for any other type or function, or is damaged.
        LimitError: it has too many objects.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise pickle.UnpicklingError("the file is damaged: it is empty")
        # A mapped file gives no more than it holds, whatever length it is asked for.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return Machine(mapped, makers, of=str(path)).run()


class Machine:
    """Follows the instructions of one pickle.

    Args:
        file: a mapped file or `io.BytesIO`, which do not allocate what they are asked for; after
            `run` it stands behind the pickle.
        makers: the names that are allowed, each a function of plain arguments. What it returns may
            have a method `take_state(state)`, which returns what it becomes.
        persistent: makes what a persistent id stands for; None where there may be none.
        of: the file, for errors.
    """

    def __init__(
        self,
        file: io.BytesIO | mmap.mmap,
        makers: Makers,
        *,
        persistent: Callable[[Any], Any] | None = None,
        of: str = "the pickle",
    ) -> None:
        self._file = file
        self._makers = makers
        self._persistent = persistent
        self._of = of
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._used = 0
        size = file.size() if isinstance(file, mmap.mmap) else file.getbuffer().nbytes
        self._usable = 4 * size + _ALWAYS_USABLE
        self._places: dict[int, list[int]] = {}  # in the memo, of what may become something else

    def run(self) -> Any:
        """Follow the program to its end.

        Returns:
            The object.

        Raises:
            pickle.UnpicklingError: it is damaged, or asks for what is not allowed.
            LimitError: it has more steps than `Limits.pickle_objects`.
        """
        most, steps = limits().pickle_objects, 0
        try:
            while True:
                name, argument = self._next()
                steps += 1
                if steps > most:
                    require_within("pickle_objects", steps, of=self._of)
                if name == "STOP":
                    return self._pop()
                if name in _DATA:
                    self._stack.append(argument)
                elif name in _EMPTY:
                    self._stack.append(_EMPTY[name]())
                elif name in _CONSTANTS:
                    self._stack.append(_CONSTANTS[name])
                else:
                    self._STEPS[name](self, argument)
        except LimitError:
            raise
        except PLAIN_DATA_ERRORS as error:
            raise pickle.UnpicklingError(f"the file is damaged: {error}") from error

    def _next(self) -> tuple[str, Any]:
        code = self._file.read(1)
        if code not in _READERS:
            raise pickle.UnpicklingError(
                "the file is damaged: it ends too early"
                if not code
                else f"the file is damaged: {code!r} is no instruction of a pickle"
            )
        name, reader = _READERS[code]
        if name == "STRING":  # Python 2 wrote raw bytes so; pickletools knows ASCII only
            return name, self._quoted_line()
        return name, reader(self._file) if reader else None  # type: ignore[arg-type]

    def _quoted_line(self) -> str:
        line = self._file.readline().rstrip(b"\r\n")
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
            raise ValueError("a text without quotes around it")
        return bytes(codecs.escape_decode(line[1:-1])[0]).decode("latin1")

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise IndexError("nothing is left to take")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                taken = self._stack[place + 1 :]
                del self._stack[place:]
                return taken
        raise IndexError("there is no mark to go back to")

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise IndexError("nothing is there to add to")
        return self._stack[-1]

    def _tuple(self, count: int) -> None:
        items = tuple(reversed([self._pop() for _ in range(count)]))
        self._stack.append(items)

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise TypeError(f"items for a {type(target).__name__}")
        target.extend(items)

    def _add(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, set):
            raise TypeError(f"members for a {type(target).__name__}")
        target.update(map(_as_key, items))

    def _set_items(self, flat: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict):
            raise TypeError(f"keys for a {type(target).__name__}")
        target.update(_pairs(flat))

    def _global(self, module: str, name: str) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if (module, name) not in self._makers:
            raise pickle.UnpicklingError(
                f"the file asks for {module[:100]}.{name[:100]}, which is neither a tensor, an "
                "array nor a plain container; it is another kind of file or not to be trusted"
            )
        self._stack.append(Name(module, name))

    def _call(self, arguments: Any) -> None:
        function = self._pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError("a call of what is no name")
        self._charge(arguments)
        self._stack.append(self._makers[function](*arguments))

    def _charge(self, arguments: tuple[Any, ...]) -> None:
        """Count what is built from: a writer uses each text or list once, a bomb over and over."""
        self._used += sum(len(each) for each in arguments if isinstance(each, _SIZED))
        if self._used > self._usable:
            raise pickle.UnpicklingError("the file builds from the same data over and over")

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        if isinstance(target, dict):  # attributes of an OrderedDict, such as torch's _metadata
            self._stack.append(target)
            return
        if not hasattr(target, "take_state"):
            raise TypeError(f"a state for a {type(target).__name__}")
        if isinstance(state, tuple):
            self._charge(state)
        built = target.take_state(state)
        if built is not target:
            for place in self._places.pop(id(target), ()):
                if self._memo.get(place) is target:
                    self._memo[place] = built
        self._stack.append(built)

    def _persist(self, reference: Any) -> None:
        if self._persistent is None:
            raise pickle.UnpicklingError("the file refers to data beside it, which has no place")
        self._stack.append(self._persistent(reference))

    def _pop_one(self) -> None:
        if not self._stack:
            raise IndexError("nothing is left to take")
        self._stack.pop()

    def _remember(self, place: int | None = None) -> None:
        value, place = self._top(), len(self._memo) if place is None else place
        self._memo[place] = value
        if hasattr(value, "take_state"):
            self._places.setdefault(id(value), []).append(place)

    def _new_with_keywords(self) -> None:
        if self._pop() != {}:
            raise TypeError("keywords for what takes none")
        self._call(self._pop())

    def _instance(self, name: str) -> None:
        arguments = tuple(self._pop_to_mark())
        self._global(*name.split(" ", 1))
        self._call(arguments)

    def _object(self) -> None:
        function, *arguments = self._pop_to_mark()
        self._stack.append(function)
        self._call(tuple(arguments))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    _STEPS: ClassVar[Mapping[str, Callable[[Machine, Any], None]]] = {
        "PROTO": lambda m, version: None,
        "FRAME": lambda m, length: None,
        "MARK": lambda m, _: m._stack.append(_MARK),
        "POP": lambda m, _: m._pop_one(),
        "POP_MARK": lambda m, _: m._pop_to_mark().clear(),
        "DUP": lambda m, _: m._stack.append(m._top()),
        "LIST": lambda m, _: m._stack.append(m._pop_to_mark()),
        "TUPLE": lambda m, _: m._stack.append(tuple(m._pop_to_mark())),
        "TUPLE1": lambda m, _: m._tuple(1),
        "TUPLE2": lambda m, _: m._tuple(2),
        "TUPLE3": lambda m, _: m._tuple(3),
        "DICT": lambda m, _: m._stack.append(dict(_pairs(m._pop_to_mark()))),
        "FROZENSET": lambda m, _: m._stack.append(frozenset(map(_as_key, m._pop_to_mark()))),
        "APPEND": lambda m, _: m._extend([m._pop()]),
        "APPENDS": lambda m, _: m._extend(m._pop_to_mark()),
        "ADDITEMS": lambda m, _: m._add(m._pop_to_mark()),
        "SETITEM": lambda m, _: m._set_items([m._pop(), m._pop()][::-1]),
        "SETITEMS": lambda m, _: m._set_items(m._pop_to_mark()),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda m, n: m._remember(n)),
        "MEMOIZE": lambda m, _: m._remember(),
        **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, n: m._stack.append(m._memo[n])),
        "GLOBAL": lambda m, name: m._global(*name.split(" ", 1)),
        "STACK_GLOBAL": lambda m, _: m._stack_global(),
        **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m._call(m._pop())),
        "NEWOBJ_EX": lambda m, _: m._new_with_keywords(),
        "INST": lambda m, name: m._instance(name),
        "OBJ": lambda m, _: m._object(),
        "BUILD": lambda m, _: m._build(),
        "PERSID": lambda m, reference: m._persist(reference),
        "BINPERSID": lambda m, _: m._persist(m._pop()),
    }


def _as_key(value: Any) -> Any:
    """Let plain keys pass; to hash tuples of tuples or a long number may take for ever."""
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) > _MOST_IN_KEY:
        raise TypeError("a tuple of many values as a key")
    for part in parts:
        if not isinstance(part, _SCALARS) or (isinstance(part, int) and part.bit_length() > 64):
            raise TypeError(f"a {type(part).__name__} as a key")
    return value


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    if len(flat) % 2:
        raise ValueError("a key without its value")
    return [(_as_key(key), value) for key, value in zip(flat[::2], flat[1::2], strict=True)]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How Python 3 writes bytes in the old protocols; other codecs have no place in a weight file.
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError("expected a text in latin1")
    return text.encode("latin1")


def _bytes() -> bytes:
    # How Python 3 writes no bytes at all in the old protocols.
    return b""


def _dictionary(pairs: Any = ()) -> dict[Any, Any]:
    pairs = list(pairs.items()) if isinstance(pairs, dict) else pairs
    if not isinstance(pairs, (list, tuple)):
        raise TypeError("expected pairs of keys and values")
    return {_as_key(key): value for key, value in pairs}


def _counter(counts: Any = ()) -> Counter[Any]:
    return Counter(_dictionary(counts))


PLAIN: Makers = {
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "Counter"): _counter,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _bytes,
}
