"""The plain values in a pickled file, found without unpickling it.

To unpickle a file is to run it: it may name any function and have it called. Here
`pickletools.genops` only splits it into opcodes, and a small stack machine follows those that build
numbers, text, lists, dicts, tuples and arrays of bytes. Names are compared with the few that NumPy
writes for an array; nothing is imported or called because the file says so.
"""

from dataclasses import dataclass
from pickletools import genops
from typing import Any

import numpy as np

_MOST_OPCODES = 200_000  # a file of CIFAR-10 has about 30,000
_RECONSTRUCT = tuple(f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core"))
_FROM_BUFFER = tuple(f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core"))
_NAMES = (*_RECONSTRUCT, *_FROM_BUFFER, "numpy ndarray", "numpy dtype")
_MARK = object()
_UNFILLED = object()  # an array before BUILD, which puts the array in its place


@dataclass(frozen=True)
class _Global:
    name: str  # "module name"


def plain_value(content: bytes) -> Any:
    """The value that a pickled file holds, with arrays (n, m) of uint8, and text for keys.

    As Python 2 writes it in protocol 2 (its strings are bytes here), and Python 3 in 3, 4 and 5.
    What is damaged, or needs anything else, is a ValueError; bytes after the end are, too.

    >>> plain_value(b"\\x80\\x02}U\\x06labels]K\\x07as.")
    {'labels': [7]}
    >>> plain_value(b"\\x80\\x02cos\\nsystem\\nU\\x02ls\\x85R.")
    Traceback (most recent call last):
    ValueError: byte 2: got the name 'os system', wants those of a NumPy array
    """
    stack, memo = [], {}
    for count, (opcode, argument, position) in enumerate(genops(content)):
        try:
            if count == _MOST_OPCODES:
                raise ValueError(f"got more than {_MOST_OPCODES:,} opcodes")
            if opcode.name != "STOP":
                _follow(opcode.name, argument, stack, memo)
        except ValueError as error:
            raise ValueError(f"byte {position}: {error}") from error
    if len(stack) != 1 or position + 1 != len(content):
        left = len(content) - position - 1
        raise ValueError(f"got {len(stack)} values and {left:,} bytes after them, wants one value")
    return stack[0]


def _follow(name: str, argument: Any, stack: list, memo: dict) -> None:
    """Do to the stack what an opcode does."""
    match name:
        case "PROTO" | "FRAME":
            pass
        case "NONE" | "NEWFALSE" | "NEWTRUE":
            stack.append({"NONE": None, "NEWFALSE": False, "NEWTRUE": True}[name])
        case "BININT" | "BININT1" | "BININT2" | "LONG1":
            stack.append(argument)
        case "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES" | "BYTEARRAY8":
            stack.append(argument)
        case "BINSTRING" | "SHORT_BINSTRING":
            stack.append(argument.encode("latin-1"))  # genops makes text of Python 2's bytes
        case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
            stack.append({"EMPTY_LIST": [], "EMPTY_DICT": {}, "EMPTY_TUPLE": ()}[name])
        case "MARK":
            stack.append(_MARK)
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            stack.append(tuple(_taken(stack, int(name[-1]))))
        case "APPEND" | "APPENDS":
            items = _taken(stack, 1) if name == "APPEND" else _since_mark(stack)
            _top(stack, list).extend(items)
        case "SETITEM" | "SETITEMS":
            items = _taken(stack, 2) if name == "SETITEM" else _since_mark(stack)
            _top(stack, dict).update(zip(map(_key, items[::2]), items[1::2], strict=True))
        case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else argument] = _top(stack, object)
        case "BINGET" | "LONG_BINGET":
            if argument not in memo:
                raise ValueError(f"got a reference to {argument}, wants one to what came before")
            stack.append(memo[argument])
        case "GLOBAL":
            stack.append(_global(argument))
        case "STACK_GLOBAL":
            module, attribute = _taken(stack, 2)
            if not (isinstance(module, str) and isinstance(attribute, str)):
                raise ValueError("got a name that is no text")
            stack.append(_global(f"{module} {attribute}"))
        case "REDUCE":
            stack.append(_made(*_taken(stack, 2)))
        case "BUILD":
            stack.append(_built(*_taken(stack, 2)))
        case _:
            raise ValueError(f"got the opcode {name}, wants those of plain values")


# --- The stack ------------------------------------------------------------------------------------


def _taken(stack: list, count: int) -> list:
    """The last `count` values, taken away."""
    if len(stack) < count:
        raise ValueError(f"got {len(stack)} values on the stack, wants {count}")
    values = stack[-count:]
    del stack[-count:]
    return values


def _since_mark(stack: list) -> list:
    """The values after the last mark, taken away with it."""
    for k in reversed(range(len(stack))):
        if stack[k] is _MARK:
            values = stack[k + 1 :]
            del stack[k:]
            return values
    raise ValueError("got no mark on the stack, wants one")


def _top(stack: list, kind: type) -> Any:
    """The last value, if it is of that kind."""
    if not stack or not isinstance(stack[-1], kind):
        got = type(stack[-1]).__name__ if stack else "nothing"
        raise ValueError(f"got {got} on the stack, wants {kind.__name__}")
    return stack[-1]


def _key(value: Any) -> str:
    if not isinstance(value, (str, bytes)):
        raise ValueError(f"got a key of {type(value).__name__}, wants text")
    return value if isinstance(value, str) else value.decode("latin-1")


# --- NumPy's arrays -------------------------------------------------------------------------------


def _global(name: str) -> _Global:
    if name not in _NAMES:
        raise ValueError(f"got the name {name!r:.80}, wants those of a NumPy array")
    return _Global(name)


def _made(function: Any, arguments: Any) -> Any:
    """What a call of NumPy's would return: an array, one that has yet no values, or a dtype."""
    match function, arguments:
        case _Global("numpy dtype"), ("u1" | b"u1", *_):
            return np.dtype(np.uint8)
        case _Global("numpy dtype"), (str() | bytes() as name, *_):
            raise ValueError(f"got the dtype {name!r:.20}, wants 'u1' (uint8)")
        case _Global(name), (_Global("numpy ndarray"), *_) if name in _RECONSTRUCT:
            return _UNFILLED
        case _Global(name), (content, np.dtype(), shape, "C" | "F" as order) if (
            name in _FROM_BUFFER
        ):
            return _array(content, shape, order)
    raise ValueError("got a call, wants one that makes a NumPy array")


def _built(value: Any, state: Any) -> Any:
    """A value after its state was set: a dtype, which is as it was, or an array."""
    match value, state:
        case np.dtype(), tuple() if all(
            isinstance(item, (int, str, bytes, type(None))) for item in state
        ):  # no fields, no array in an element: all else belongs to the name
            return value
        case _, (int(), shape, np.dtype(), int() as fortran, content) if value is _UNFILLED:
            return _array(content, shape, "F" if fortran else "C")
    raise ValueError("got a state to set, wants that of a NumPy array")


def _array(content: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(content, (bytes, bytearray)):
        raise ValueError(f"got an array of {type(content).__name__}, wants bytes")
    match shape:
        case (int(rows), int(columns)) if min(rows, columns) >= 0:
            if rows * columns == len(content):
                return np.frombuffer(content, np.uint8).reshape(rows, columns, order=order)
            raise ValueError(f"got {len(content):,} bytes for {rows} × {columns} values")
    raise ValueError("got an array of another shape, wants rows and columns")
