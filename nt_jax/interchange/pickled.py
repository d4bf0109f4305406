"""Pickles read as data: nothing that a file names is ever imported, looked up or called.

Python's own reader builds whatever a file asks for, so that reading means running. This one knows
the few instructions that dictionaries of arrays are written with, and the names it is given, each
of which stands for a function of ours; any other instruction or name ends the reading. Bytes are
not read at all: their place in the file is noted.

The format is that of the module `pickle`, protocols 2 to 5.
"""

import abc
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

from nt_jax.interchange.stored_array import Source, Span, Unreadable

_PROTOCOLS = range(2, 6)
# A hundred times what the largest published checkpoint takes; each costs up to 100 bytes.
_MOST_INSTRUCTIONS = 5_000_000
_LONGEST_NAME = 200

Make = Callable[["PickleReader", tuple[Any, ...]], Any]
"""What a call of a name stands for: (reader, arguments) -> value."""


class Global(NamedTuple):
    """An admitted name, as a value."""

    name: str
    make: Make | None


class Built(abc.ABC):
    """A value that the file completes after it was made."""

    @abc.abstractmethod
    def build(self, reader: "PickleReader", state: Any) -> None:
        """Completes it; raises Unreadable for another state than expected."""


class PickleReader:
    """The stack machine of the format."""

    def __init__(self, file: BinaryIO, names: Mapping[tuple[str, str], Make | None]) -> None:
        """Takes over a file that has a descriptor.

        `names` are the admitted ones, (module, name) -> what a call stands for, None when it must
        not be called.
        """
        self.source = Source(file)
        self.stack: list[Any] = []
        self._file, self._names = file, names
        self._size = file.seek(0, 2)
        file.seek(0)
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The object of the file; bytes are a Span.

        Raises Unreadable for all else: truncated, damaged, other content, a name not admitted.
        """
        try:
            return self._run()
        except Unreadable as error:
            raise Unreadable(f"{error} (before byte {self._file.tell()})") from None
        except (ValueError, TypeError, LookupError) as error:
            # Wrong operands: an empty stack, a missing memo, a number for a list.
            raise Unreadable(f"is damaged (before byte {self._file.tell()})") from error

    def _run(self) -> Any:
        if self.take(1) != pickle.PROTO or self.take(1)[0] not in _PROTOCOLS:
            raise Unreadable("is no pickle of protocol 2 to 5")
        for _ in range(_MOST_INSTRUCTIONS):
            code = self.take(1)
            if code == pickle.STOP:
                return self._result()
            if code not in _INSTRUCTIONS:
                raise Unreadable(f"has the instruction {code!r}, which no array needs")
            _INSTRUCTIONS[code](self)
        raise Unreadable("has more instructions than any checkpoint needs")

    def _result(self) -> Any:
        if len(self.stack) != 1 or self._marks:
            raise Unreadable("is damaged")
        if self._file.tell() != self._size:
            raise Unreadable("goes on after its end")
        return self.stack[0]

    def skip(self, size: int) -> Span:
        """Passes over bytes of the file."""
        span = Span(self._file.tell(), size)
        if size > self._size - span.offset:
            raise Unreadable("ends early")
        self._file.seek(size, 1)
        return span

    def take(self, size: int) -> bytes:
        """The next bytes of the file; asks for no more memory than the file is long."""
        if size > self._size - self._file.tell():
            raise Unreadable("ends early")
        return self._file.read(size)

    def number(self, layout: str) -> Any:
        """The next number, in a layout of `struct`."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        """The next line, without its end."""
        line = self._file.readline(_LONGEST_NAME)
        if not line.endswith(b"\n"):
            raise Unreadable("ends early" if len(line) < _LONGEST_NAME else "has too long a name")
        return line[:-1].decode()

    def frame(self) -> None:
        """Passes over a frame's length: its bytes are instructions like all others."""
        self.take(8)

    def mark(self) -> None:
        """Notes where the stack ends."""
        self._marks.append(len(self.stack))

    def pop(self, count: int) -> list[Any]:
        """Takes the topmost values off the stack, lowest first."""
        return self._cut(len(self.stack) - count, count)

    def pop_marked(self) -> list[Any]:
        """Takes all values above the last mark off the stack."""
        start = self._marks.pop()
        return self._cut(start, len(self.stack) - start)

    def _cut(self, start: int, count: int) -> list[Any]:
        values = self.stack[start:]
        if len(values) != count:
            raise Unreadable("is damaged")
        del self.stack[start:]
        return values

    def put(self, index: int) -> None:
        """Remembers the topmost value."""
        self._memo[index] = self.stack[-1]

    def memoize(self) -> None:
        """Remembers the topmost value under the next index."""
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        """Puts a remembered value on the stack."""
        self.stack.append(self._memo[index])

    def name(self, module: Any, name: Any) -> None:
        """Puts an admitted name on the stack."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Unreadable("is damaged")
        full = f"{module}.{name}"[:_LONGEST_NAME]
        if (module, name) not in self._names:
            raise Unreadable(f"asks for {full!r}, which no array needs")
        self.stack.append(Global(full, self._names[module, name]))

    def call(self) -> None:
        """Replaces a name and its arguments by what they stand for."""
        function, arguments = self.pop(2)
        if type(function) is not Global or function.make is None or type(arguments) is not tuple:
            raise Unreadable("calls what is no function")
        self.stack.append(function.make(self, arguments))

    def build(self) -> None:
        """Completes the value below a state."""
        (state,) = self.pop(1)
        if not isinstance(self.stack[-1], Built):
            raise Unreadable("changes what is neither array nor type")
        self.stack[-1].build(self, state)

    def append(self, values: list[Any]) -> None:
        """Extends the topmost list."""
        if type(self.stack[-1]) is not list:
            raise Unreadable("is damaged")
        self.stack[-1].extend(values)

    def set_items(self, items: list[Any]) -> None:
        """Sets keys and values, in turn, in the topmost dictionary."""
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise Unreadable("is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Tuples nested in tuples could take forever to hash.
            if type(key) is not str:
                raise Unreadable("has a dictionary with keys other than texts")
            target[key] = value


_Step = Callable[[PickleReader], None]


def _push(value: Callable[[PickleReader], Any]) -> _Step:
    return lambda reader: reader.stack.append(value(reader))


def _number(layout: str) -> _Step:
    return _push(lambda reader: reader.number(layout))


def _text(layout: str) -> _Step:
    return _push(lambda reader: reader.take(reader.number(layout)).decode("utf-8", "surrogatepass"))


def _bytes(layout: str) -> _Step:
    return _push(lambda reader: reader.skip(reader.number(layout)))


def _tuple(count: int) -> _Step:
    return _push(lambda reader: tuple(reader.pop(count)))


def _integer(reader: PickleReader) -> int:
    return int.from_bytes(reader.take(reader.number("<B")), "little", signed=True)


_INSTRUCTIONS: dict[bytes, _Step] = {
    pickle.FRAME: PickleReader.frame,
    pickle.NONE: _push(lambda reader: None),
    pickle.NEWTRUE: _push(lambda reader: True),
    pickle.NEWFALSE: _push(lambda reader: False),
    pickle.BININT: _number("<i"),
    pickle.BININT1: _number("<B"),
    pickle.BININT2: _number("<H"),
    pickle.BINFLOAT: _number(">d"),
    pickle.LONG1: _push(_integer),
    pickle.SHORT_BINUNICODE: _text("<B"),
    pickle.BINUNICODE: _text("<I"),
    pickle.BINUNICODE8: _text("<Q"),
    pickle.SHORT_BINBYTES: _bytes("<B"),
    pickle.BINBYTES: _bytes("<I"),
    pickle.BINBYTES8: _bytes("<Q"),
    pickle.BYTEARRAY8: _bytes("<Q"),
    pickle.EMPTY_TUPLE: _tuple(0),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.TUPLE: _push(lambda reader: tuple(reader.pop_marked())),
    pickle.EMPTY_LIST: _push(lambda reader: []),
    pickle.EMPTY_DICT: _push(lambda reader: {}),
    pickle.MARK: PickleReader.mark,
    pickle.APPEND: lambda reader: reader.append(reader.pop(1)),
    pickle.APPENDS: lambda reader: reader.append(reader.pop_marked()),
    pickle.SETITEM: lambda reader: reader.set_items(reader.pop(2)),
    pickle.SETITEMS: lambda reader: reader.set_items(reader.pop_marked()),
    pickle.BINPUT: lambda reader: reader.put(reader.number("<B")),
    pickle.LONG_BINPUT: lambda reader: reader.put(reader.number("<I")),
    pickle.MEMOIZE: PickleReader.memoize,
    pickle.BINGET: lambda reader: reader.get(reader.number("<B")),
    pickle.LONG_BINGET: lambda reader: reader.get(reader.number("<I")),
    pickle.GLOBAL: lambda reader: reader.name(reader.line(), reader.line()),
    pickle.STACK_GLOBAL: lambda reader: reader.name(*reader.pop(2)),
    pickle.REDUCE: PickleReader.call,
    pickle.NEWOBJ: PickleReader.call,
    pickle.BUILD: PickleReader.build,
}
