"""Pickled metadata of benchmarks, read as records: nothing is imported and no code of it runs.

A pickle is a small program; an ordinary unpickler imports and calls whatever it names. Here its
instructions are checked before the first of them runs, and every name it asks for is answered by
a function or a record of this file. What has no answer is refused.
"""

import datetime
import io
import pickle  # what it may call is listed in this file
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from geodino.errors import SourceError

MAX_STEPS = 50_000
"""Most instructions of a pickle: metadata of a sample takes some thousand. Deeper nesting than
this would also be more than the interpreter's stack holds."""

_REFUSED_STEPS = {
    "EXT1": "a registered extension", "EXT2": "a registered extension",
    "EXT4": "a registered extension", "PERSID": "an object kept elsewhere",
    "BINPERSID": "an object kept elsewhere", "NEXT_BUFFER": "a buffer kept elsewhere",
    "READONLY_BUFFER": "a buffer kept elsewhere",
    "INST": "an instance of the old kind", "OBJ": "an instance of the old kind",
}  # fmt: skip

_MISTAKES = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError,
    OverflowError, MemoryError, RecursionError, ImportError, AssertionError,
)  # fmt: skip
"""What an unpickler raises on damaged or hostile input; nothing else can come out of it here."""

_RECORD_ROOTS = frozenset({"geobench", "ccb"})
"""Packages whose classes are kept as records; ``ccb`` is geobench under its first name."""

_RECORD_NAMES = frozenset({("affine", "Affine"), ("rasterio.crs", "CRS")})
"""Classes of values that geobench keeps in its own: transforms and coordinate systems."""

_DTYPE = re.compile(r"[<>|=]?(b1|i[1248]|u[1248]|f[248]|U\d{1,6}|S\d{1,6})")
"""Types of numbers and text; none that holds objects or fields."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """An object of a class that was never imported: its name and what it held."""

    name: str
    """Full name: ``geobench.dataset.Sentinel2``."""

    args: tuple[Any, ...] = ()
    """What its class was called with."""

    state: Any = None
    """What was put into it, nearly always its attributes by name."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or ``default`` where it has none of that name."""
        return self.state.get(key, default) if isinstance(self.state, Mapping) else default


def restricted_loads(data: bytes, *, source: str) -> Any:
    """Read a pickle of plain values, arrays of numbers, dates and geobench's own objects.

    Args:
        data: the pickle, any protocol.
        source: the file, for messages.

    Returns:
        Containers, numbers, text, dates, numpy arrays, and ``Record`` for objects; a class that is
        only named is a ``Record`` without state.

    Raises:
        SourceError: it is damaged, or asks for anything else; the message says for what.
    """
    _check_steps(data, source)
    try:
        return _Plain().of(_Restricted(data, source).load())
    except _MISTAKES as error:
        raise _damaged(source, error) from None


def _check_steps(data: bytes, source: str) -> None:
    """Refuse instructions that reach around ``find_class``, and programs that are too long."""
    try:
        for number, (step, argument, _) in enumerate(pickletools.genops(data)):
            if step.name in _REFUSED_STEPS:
                _refuse(source, f"{_REFUSED_STEPS[step.name]} ({step.name})")
            if number >= MAX_STEPS:
                _refuse(source, f"more than {MAX_STEPS} instructions")
            # The memo is an array: one entry with a huge number would take all memory.
            if step.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > MAX_STEPS:
                _refuse(source, f"a memo of {argument} entries")
    except _MISTAKES as error:
        raise _damaged(source, error) from None


def _refuse(source: str, what: str) -> NoReturn:
    raise SourceError(
        f"{source} holds a pickle that asks for {what}; only plain values, arrays of numbers, dates "
        "and geobench's own records are read from it. Do not open this file with other tools; "
        "download the data set again from its publisher."
    )


def _damaged(source: str, error: BaseException) -> SourceError:
    said = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return SourceError(
        f"{source} holds a pickle that cannot be read ({said}). Download the file again."
    )


class _Restricted(pickle.Unpickler):
    """An unpickler for which only the names below exist."""

    def __init__(self, data: bytes, source: str) -> None:
        super().__init__(io.BytesIO(data))
        self._source = source
        self._classes: dict[tuple[str, str], type[_Inert]] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Answer a name with a stand-in of this file, or refuse it."""
        key = (_MOVED.get(module_name, module_name), global_name)
        if key in _ANSWERS:
            return _ANSWERS[key]
        if module_name.partition(".")[0] in _RECORD_ROOTS or key in _RECORD_NAMES:
            if key not in self._classes:
                self._classes[key] = type("_Record", (_Inert,), {"origin": ".".join(key)})
            return self._classes[key]
        _refuse(self._source, f"{module_name}.{global_name}")


class _Inert:
    """Stands for an object of another package while its pickle is read; does nothing."""

    origin = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        made = super().__new__(cls)
        made.__dict__.update(args=args, held=kwargs or None)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what the class was called with; ``__new__`` has kept it."""

    def __setstate__(self, state: Any) -> None:
        # Objects with slots come as (attributes, slots).
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = {**(state[0] or {}), **state[1]}
        self.__dict__["held"] = state


class _Type:
    """A numpy type while a pickle is read; only its byte order may be set."""

    def __init__(self, text: Any, *_: Any) -> None:
        if not isinstance(text, str) or not _DTYPE.fullmatch(text):
            raise ValueError(f"an array of type {text!r}, which holds more than numbers or text")
        self.text = text

    def __setstate__(self, state: Any) -> None:
        order, fields = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in fields):
            raise ValueError("an array of a compound type")
        self.text = order + self.text.lstrip("<>|=")

    @property
    def dtype(self) -> "np.dtype[Any]":
        return np.dtype(self.text)


class _Array:
    """A numpy array while a pickle is read; its numbers are taken from bytes."""

    def __init__(self, *_: Any) -> None:
        self.values: Any = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or not isinstance(content, (bytes, bytearray)):
            raise TypeError("an array that is no block of numbers")
        values = np.frombuffer(bytes(content), dtype=kind.dtype)
        self.values = values.reshape(shape, order="F" if fortran else "C").copy()


def _array_from_bytes(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.__setstate__((1, shape, kind, order == "F", bytes(content)))
    return made


def _scalar(kind: Any, content: Any) -> Any:
    if not isinstance(kind, _Type) or not isinstance(content, bytes):
        raise TypeError("a number that is none")
    return np.frombuffer(content, dtype=kind.dtype)[0].item()


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _rebuilt(kind: Any, base: Any, state: Any) -> Any:
    """Make an object as the protocols 0 and 1 do, which go through a function."""
    if not (isinstance(kind, type) and issubclass(kind, _Inert)):
        raise TypeError("an object of a class that has no record")
    return kind() if state is None else kind(*state)


def _bytes(content: Any = b"") -> bytearray:
    if not isinstance(content, (bytes, list)):
        raise TypeError("bytes of a length instead of bytes")
    return bytearray(content)


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    return dict(pairs)


def _set_of(values: Any = ()) -> set[Any]:
    return set(values)


def _frozen_set_of(values: Any = ()) -> frozenset[Any]:
    return frozenset(values)


def _complex(real: float = 0.0, imaginary: float = 0.0) -> complex:
    return complex(real, imaginary)


class _Answer:
    """A callable that a pickle can do nothing to but call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a change of a function")


class _Base:
    """Answers ``object`` and ``tuple`` where an old protocol names a class's base."""


_MOVED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}
"""Modules by their names of today."""

_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "set"): _set_of,
    ("builtins", "frozenset"): _frozen_set_of,
    ("builtins", "bytearray"): _bytes,
    ("builtins", "complex"): _complex,
    ("builtins", "object"): _Base,
    ("builtins", "tuple"): _Base,
    ("collections", "OrderedDict"): _mapping,
    ("copyreg", "_reconstructor"): _rebuilt,
    ("_codecs", "encode"): _encoded,
    ("datetime", "date"): datetime.date,
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "time"): datetime.time,
    ("datetime", "timedelta"): datetime.timedelta,
    ("datetime", "timezone"): datetime.timezone,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _array_from_bytes,
}
"""All that a pickle may name beside records, and who answers: no function of numpy is called."""

_ANSWERS = {name: _Answer(function) for name, function in _FUNCTIONS.items()}


class _Plain:
    """Turns stand-ins into records and arrays; what occurs twice is converted once."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}
        self._kept: list[Any] = []

    def of(self, value: Any) -> Any:
        if isinstance(value, (str, bytes, int, float, complex, type(None), datetime.date)):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        # Kept alive, or another object could get the number of this one.
        self._kept.append(value)
        made = self._made(value)
        self._done[id(value)] = made
        return made

    def _made(self, value: Any) -> Any:
        if isinstance(value, dict):
            made: dict[Any, Any] = {}
            self._done[id(value)] = made
            made.update({self.of(k): self.of(v) for k, v in value.items()})
            return made
        if isinstance(value, list):
            rows: list[Any] = []
            self._done[id(value)] = rows
            rows.extend(self.of(v) for v in value)
            return rows
        if isinstance(value, (tuple, set, frozenset)):
            return type(value)(self.of(v) for v in value)
        if isinstance(value, _Array):
            return value.values
        if isinstance(value, _Type):
            return value.text
        if isinstance(value, type) and issubclass(value, _Inert):
            return Record(name=value.origin)
        if isinstance(value, _Inert):
            held = value.__dict__
            return Record(
                name=value.origin, args=self.of(held["args"]), state=self.of(held["held"])
            )
        if isinstance(value, (bytearray, datetime.time, datetime.timedelta, datetime.timezone)):
            return value
        raise ValueError(f"a value of the kind {getattr(value, '__name__', type(value).__name__)}")
