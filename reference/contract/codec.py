"""Decodes JSON into frozen dataclasses: strict text, checked types, and an error that names the place.

`parse` refuses what JSON writers differ about, `decode` gives a value the type that a dataclass declares for it.
Back it goes with `dataclasses.asdict` and `json.dumps(..., allow_nan=False)`.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypeVar

from litehrnet_stage2.reference.errors import InputError

T = TypeVar("T")

LARGEST_NUMBER = 1e15
"""No number in a file of ours comes near it: sizes in bytes, counts of instructions, milliseconds."""

MOST_DEPTH = 32
"""Of objects and lists within each other; our own files have ten, and what writes or compares them calls itself."""

FORMERLY = "formerly"
"""Key of a field's metadata: what files of an older version call the field."""


class CodecError(InputError):
    """A value is not what its type says, or text is not strict JSON; the message names the place."""


def parse(text: str | bytes) -> Any:
    """Plain data from JSON without its traps: no NaN or infinity, no key twice, no depth beyond `MOST_DEPTH`.

    Raises:
        CodecError: the text is not that.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        _check_depth(value)
        return value
    except RecursionError as error:
        raise CodecError("it is nested too deeply") from error
    except CodecError:
        raise
    except ValueError as error:  # not JSON, not UTF-8, or a whole number of thousands of digits
        raise CodecError(str(error)) from error


def decode(kind: type[T], value: Any, *, unknown: Literal["refuse", "ignore"] = "ignore", where: str = "") -> T:
    """`value`, as `parse` gave it, as a `kind`.

    Args:
        kind: a dataclass, or one of the types its fields may have: str, bool, int, float, `Literal`, `X | None`,
            tuples, mappings from str or int, and `Any`.
        unknown: what to do with keys that a dataclass has no field for.
        where: the place of `value`, for the message.

    Raises:
        CodecError: a wrong type or a missing field, a number that is not finite or beyond `LARGEST_NUMBER`, text that
            is not Unicode, or a `ValueError` of a dataclass about its fields.
    """
    decoded: T = _Decoder(unknown).value(kind, value, where)
    return decoded


class _Decoder:
    def __init__(self, unknown: str) -> None:
        self._unknown = unknown

    def value(self, kind: Any, value: Any, where: str) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any:
            return value
        if origin in (types.UnionType, typing.Union):
            (inner,) = (argument for argument in arguments if argument is not types.NoneType)
            return None if value is None else self.value(inner, value, where)
        if origin is Literal:
            return value if value in arguments else _refuse(value, where, f"one of {', '.join(map(repr, arguments))}")
        if dataclasses.is_dataclass(kind):
            return self._dataclass(kind, value, where)
        if origin is tuple:
            return self._tuple(arguments, value, where)
        if origin is not None:
            return self._mapping(arguments, value, where)
        return _plain(kind, value, where)

    def _dataclass(self, kind: Any, value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            _refuse(value, where, "an object")
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        for name, former in ((name, field.metadata.get(FORMERLY)) for name, field in fields.items()):
            if former in value and name not in value:
                value = {name if key == former else key: entry for key, entry in value.items()}
        if self._unknown == "refuse" and (extra := sorted(value.keys() - fields.keys())):
            raise CodecError(f"{where or 'it'} has a field {extra[0]!r}, which is unknown")
        for name, field in fields.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and name not in value:
                raise CodecError(f"{where or 'it'} has no field {name!r}")
        given = {
            name: self.value(hints[name], entry, f"{where}.{name}" if where else name)
            for name, entry in value.items()
            if name in fields
        }
        try:
            return kind(**given)
        except CodecError:
            raise
        except ValueError as error:
            raise CodecError(f"{where or 'it'} cannot be: {error}") from error

    def _tuple(self, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
        if not isinstance(value, (list, tuple)):
            _refuse(value, where, "a list")
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        if len(arguments) != len(value):
            _refuse(value, where, f"a list of {len(arguments)}")
        pairs = zip(arguments, value, strict=True)
        return tuple(self.value(kind, entry, f"{where}[{i}]") for i, (kind, entry) in enumerate(pairs))

    def _mapping(self, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            _refuse(value, where, "an object")
        key, kind = arguments
        return {_key(key, name, where): self.value(kind, entry, f"{where}[{name!a}]") for name, entry in value.items()}


def _plain(kind: Any, value: Any, where: str) -> Any:
    match kind:
        case _ if kind is bool and isinstance(value, bool):
            return value
        case _ if kind is str and isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                _refuse(value, where, "Unicode text")
            return value
        case _ if kind in (int, float) and isinstance(value, (kind, int)) and not isinstance(value, bool):
            if not abs(value) <= LARGEST_NUMBER:  # nor is NaN
                _refuse(value, where, f"a number between -{LARGEST_NUMBER:g} and {LARGEST_NUMBER:g}")
            return kind(value)
    names = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
    return _refuse(value, where, names[kind])


def _key(kind: Any, name: Any, where: str) -> Any:
    if kind is str:
        return _plain(str, name, f"a key of {where}")
    try:
        return _plain(int, int(name), f"a key of {where}")
    except (TypeError, ValueError):
        return _refuse(name, f"a key of {where}", "a whole number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise CodecError(f"it has the key {twice!a} twice in one object")
    return found


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MOST_DEPTH):
        nested = (entry.values() if isinstance(entry, dict) else entry for entry in level)
        level = [inner for entries in nested for inner in entries if isinstance(inner, (dict, list))]
        if not level:
            return
    raise CodecError("it is nested too deeply")


def _refuse_constant(name: str) -> NoReturn:
    raise CodecError(f"it holds {name}, which is no number")


def _refuse(value: Any, where: str, due: str) -> NoReturn:
    shown = f"{value!a}"
    raise CodecError(f"{where or 'it'} is {shown if len(shown) <= 60 else shown[:57] + '...'}, not {due}")
