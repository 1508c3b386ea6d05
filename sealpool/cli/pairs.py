"""Options that fill one message of the contract: `--neural epochs=3 --neural hidden=256,128`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from sealpool.v1 import learner_pb2

_MessageT = TypeVar("_MessageT", bound=Message)
_TRUTHS = {"yes": True, "true": True, "no": False, "false": False}
ENCODER = learner_pb2.EmbedHeader.DESCRIPTOR.full_name
"""The message whose name alone may stand for it."""
_WHOLE = (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)


def filled(message: _MessageT, option: str, pairs: Sequence[str]) -> _MessageT | None:
    """Fill a message from pairs KEY=VALUE and return it, None if there is none.

    A list has commas between its values, or its key several times where they are texts. An enum is its word in lower
    case. A text that begins with @ is read from the file after it. An encoder is its name, with vectors scaled to
    length 1; its other settings are keys of their own, such as encoder.pooling=cls.

    Raises
    ------
    typer.BadParameter
        With the option and the key.
    """
    seen: set[str] = set()
    for pair in pairs:
        key, equals, word = pair.partition("=")
        owner, field = _field(message, key)
        if not equals or field is None:
            problem = f"{key!r} is none of its keys" if equals else f"{pair!r} is not KEY=VALUE"
            raise _wrong(option, f"{problem}; it has {', '.join(_keys(message))}")
        if key in seen and not _takes_texts(field):
            raise _wrong(option, f"{key} is given twice")
        seen.add(key)
        try:
            _set(owner, field, word)
        except OSError as error:
            raise _wrong(option, f"{key}: {error.filename}: {error.strerror}") from error
        except (KeyError, ValueError) as error:
            raise _wrong(option, f"{key}: {word!r} is not {_kind(field)}") from error
    return message if seen else None


def enum_words(field: Any) -> dict[str, int]:
    """Return the values of an enum field by their words in lower case, the unspecified one left out."""
    values = field.enum_type.values_by_number
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    return {values[number].name.removeprefix(prefix).lower(): number for number in values if number}


def _keys(message: Message) -> list[str]:
    return [name for name, field in message.DESCRIPTOR.fields_by_name.items() if _is_told(field)]


def _is_told(field: Any) -> bool:
    return field.message_type is None or field.message_type.full_name == ENCODER


def _field(message: Message, key: str) -> tuple[Message, Any]:
    """Return the field that a key names, and the message that it is of; None for an unknown one."""
    first, dot, rest = key.partition(".")
    field = message.DESCRIPTOR.fields_by_name.get(first)
    if field is None or not _is_told(field):
        return message, None
    if not dot:
        return message, field
    return _field(getattr(message, first), rest) if field.message_type is not None else (message, None)


def _set(message: Message, field: Any, word: str) -> None:
    if field.message_type is not None:
        encoder = getattr(message, field.name)
        encoder.encoder, encoder.normalize = word, True
    elif _takes_texts(field):
        getattr(message, field.name).append(_text(word))
    elif field.is_repeated:
        getattr(message, field.name).extend(_value(field, one) for one in word.split(","))
    else:
        setattr(message, field.name, _value(field, word))


def _takes_texts(field: Any) -> bool:
    return bool(field.is_repeated and field.cpp_type == FieldDescriptor.CPPTYPE_STRING)


def _value(field: Any, word: str) -> Any:
    if field.enum_type is not None:
        return enum_words(field)[word.lower()]
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return int(word)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return float(word)
        case FieldDescriptor.CPPTYPE_BOOL:
            return _TRUTHS[word.lower()]
        case _:
            return _text(word)


def _text(word: str) -> str:
    return Path(word[1:]).read_text(encoding="utf-8") if word.startswith("@") else word


def _kind(field: Any) -> str:
    if field.enum_type is not None:
        return f"one of {', '.join(enum_words(field))}"
    if field.cpp_type in _WHOLE:
        return "whole numbers ≥ 0 with commas between them" if field.is_repeated else "a whole number ≥ 0"
    return "yes or no" if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else "a number"


def _wrong(option: str, problem: str) -> typer.BadParameter:
    return typer.BadParameter(problem, param_hint=option)
