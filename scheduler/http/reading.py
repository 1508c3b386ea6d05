"""JSON into messages: protobuf's JSON mapping, read strictly, with the field at fault named.

Names are the contract's own (snake_case); an enum is its name; 64-bit numbers may be strings of digits, bytes are
base64, a time is RFC 3339. A field that is not given is left out: null is refused.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sealpool.errors import InvalidArgument

INTEGERS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
"""What whole numbers of the contract hold."""

LONG = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})
"""Those that JavaScript's numbers do not hold exactly: strings of digits in JSON."""

NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""How protobuf writes numbers that JSON does not have. Which fields may hold them is for the services to say."""

_MAX_DIGITS = 20
_SHOWN = 60


def parse_json(content: bytes) -> Any:
    """Return what a body of JSON says; InvalidArgument where it is none, NaN and Infinity among it."""
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, and numbers of thousands of digits, among them
        raise InvalidArgument("body", f"is not JSON: {error}") from error


def fill(message: Message, value: Any, *, path: str = "") -> None:
    """Set the fields of a message from a JSON object.

    Parameters
    ----------
    path
        What leads to the message, for errors: "spec.model".

    Raises
    ------
    InvalidArgument
        An unknown field, a wrong type, a number out of range, or several fields of which there may be one.
    """
    if not isinstance(value, dict):
        raise InvalidArgument(path or "body", f"{_shown(value)} is not an object")
    fields: Mapping[str, Any] = message.DESCRIPTOR.fields_by_name
    for name, one in value.items():
        if name not in fields:
            raise InvalidArgument(_within(path, name[:_SHOWN]), f"no such field; there are {', '.join(fields)}")
        _set(message, fields[name], one, _within(path, name))
    _check_oneofs(message, value, path)


def scalar(field: FieldDescriptor, value: Any, path: str) -> Any:
    """Return a JSON value as what a field that is no message holds."""
    if field.cpp_type in INTEGERS:
        return _integer(field, value, path)
    return _SCALARS[field.cpp_type](field, value, path)


def _set(message: Message, field: FieldDescriptor, value: Any, path: str) -> None:
    if field.is_repeated:
        if not isinstance(value, list):
            raise InvalidArgument(path, f"{_shown(value)} is not a list")
        several = getattr(message, field.name)
        for position, one in enumerate(value):
            where = f"{path}[{position}]"
            if field.message_type is not None:
                _fill_one(several.add(), one, where)
            else:
                several.append(scalar(field, one, where))
    elif field.message_type is not None:
        within = getattr(message, field.name)
        within.SetInParent()
        _fill_one(within, value, path)
    else:
        setattr(message, field.name, scalar(field, value, path))


def _fill_one(message: Message, value: Any, path: str) -> None:
    if not isinstance(message, Timestamp):
        fill(message, value, path=path)
        return
    try:
        message.FromJsonString(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidArgument(path, f"{_shown(value)} is not a time in RFC 3339") from error


def _check_oneofs(message: Message, value: Mapping[str, Any], path: str) -> None:
    for oneof in message.DESCRIPTOR.oneofs:
        given = [field.name for field in oneof.fields if field.name in value]
        if len(given) > 1:
            raise InvalidArgument(_within(path, given[1]), f"and {given[0]}: only one of them may be given")


def _integer(field: FieldDescriptor, value: Any, path: str) -> int:
    low, high = INTEGERS[field.cpp_type]
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():  # JSON does not tell 5.0 from 5
        number = int(value)
    elif field.cpp_type in LONG and isinstance(value, str):
        digits = value.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
            number = int(value)
    if number is None or not low <= number <= high:
        raise InvalidArgument(path, f"{_shown(value)} is not a whole number, {low:,} to {high:,}")
    return number


def _number(_field: FieldDescriptor, value: Any, path: str) -> float:
    if isinstance(value, str) and value in NOT_FINITE:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(path, f"{_shown(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidArgument(path, f"{_shown(value)} is too large for a number")
    return number


def _bool(_field: FieldDescriptor, value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(path, f"{_shown(value)} is neither true nor false")
    return value


def _string(field: FieldDescriptor, value: Any, path: str) -> str | bytes:
    if not isinstance(value, str):
        raise InvalidArgument(path, f"{_shown(value)} is not a string")
    if "\0" in value:
        raise InvalidArgument(path, "holds a NUL character")
    try:
        value.encode()
        return base64.b64decode(value, validate=True) if field.type == FieldDescriptor.TYPE_BYTES else value
    except UnicodeEncodeError as error:
        raise InvalidArgument(path, "holds half of a surrogate pair, which is no character") from error
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(path, "is not base64") from error


def _enum(field: FieldDescriptor, value: Any, path: str) -> int:
    names = field.enum_type.values_by_name if field.enum_type is not None else {}
    if not isinstance(value, str) or value not in names:
        raise InvalidArgument(path, f"{_shown(value)} is none of {', '.join(names)}")
    return int(names[value].number)


_SCALARS: Mapping[int, Callable[[FieldDescriptor, Any, str], Any]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: _number,
    FieldDescriptor.CPPTYPE_FLOAT: _number,
    FieldDescriptor.CPPTYPE_BOOL: _bool,
    FieldDescriptor.CPPTYPE_STRING: _string,
    FieldDescriptor.CPPTYPE_ENUM: _enum,
}


def _within(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * _SHOWN:
        return "a number of so many digits"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
