"""Valid requests of any message type, and what becomes of them when they are changed by field type, all by seed."""

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_INTEGER_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (32, True),
    FieldDescriptor.CPPTYPE_INT64: (64, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False),
    FieldDescriptor.CPPTYPE_UINT64: (64, False),
}
_FLOATS = [0.0, -0.0, -1.0, 0.5, 1.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")]
_STRINGS = [
    "",
    " ",
    "\0",
    "a\0b",
    ".",
    "..",
    "../../etc",
    "/",
    "-",
    "a" * 129,
    "a" * 300,
    "\U0001f600" * 65,
    "é",
    "a\nb",
]
_STRINGS += ["\ufeff", "\ud7ff", "%s%n", "x" * 20_000, "{}", "[1]", '{"a": NaN}', "@", "p@1"]

Hint = Callable[[random.Random], Any]


class Templates:
    """Fills messages so that they make sense: by the full name of a message, or by the name of a field.

    What no hint knows of is filled by its type, so that a new field or call takes part without a word here.

    Parameters
    ----------
    messages
        How to draw a whole message, by its full name.
    fields
        How to draw a value (a list for a repeated field), by the field's name, or by Message.field.
    """

    def __init__(
        self,
        chance: random.Random,
        *,
        messages: Mapping[str, Callable[[random.Random], Message]],
        fields: Mapping[str, Hint],
    ) -> None:
        self._chance = chance
        self._messages = messages
        self._fields = fields

    def draw(self, descriptor: Descriptor) -> Message:
        """Return a message that the server may well take."""
        if descriptor.full_name in self._messages:
            return self._messages[descriptor.full_name](self._chance)
        message: Message = GetMessageClass(descriptor)()
        left_out = {
            field.name
            for oneof in descriptor.oneofs
            for field in self._chance.sample(list(oneof.fields), len(oneof.fields) - 1)
        }
        for field in descriptor.fields:
            if field.name not in left_out and self._chance.random() < 0.8:
                self.fill(message, field)
        return message

    def fill(self, message: Message, field: FieldDescriptor) -> None:
        """Give a field a value that makes sense."""
        if field.message_type is not None:
            if field.is_repeated:
                getattr(message, field.name).add().CopyFrom(self.draw(field.message_type))
            else:
                getattr(message, field.name).CopyFrom(self.draw(field.message_type))
            return
        hint = self._fields.get(f"{message.DESCRIPTOR.name}.{field.name}") or self._fields.get(field.name)
        value = hint(self._chance) if hint else _plain(field, self._chance)
        if not field.is_repeated:
            setattr(message, field.name, value)
        else:
            message.ClearField(field.name)
            getattr(message, field.name).extend(value if isinstance(value, list) else [value])


def mutate(message: Message, templates: Templates, chance: random.Random) -> None:
    """Change one thing in a message, at any depth."""
    fields: Sequence[Any] = message.DESCRIPTOR.fields
    if not fields:
        return
    field = chance.choice(fields)
    if field.is_repeated:
        _mutate_list(getattr(message, field.name), field, templates, chance)
    elif field.message_type is not None:
        _mutate_message(message, field, templates, chance)
    elif chance.random() < 0.1:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _odd(field, getattr(message, field.name), chance))


def mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """Change a serialized message without regard to what it says."""
    changed = bytearray(content or b"\0")
    for _ in range(chance.choice([1, 1, 2, 8])):
        place = chance.randrange(len(changed) + 1)
        how = chance.randrange(5)
        if how == 0:
            changed[place:place] = chance.randbytes(chance.choice([1, 4, 30]))
        elif how == 1:
            del changed[place : place + chance.choice([1, 5, 100])]
        elif how == 2 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif how == 3:
            changed += changed[:place]
        else:
            changed[place : place + 4] = struct.pack("<I", chance.choice([0, 0x7FFFFFFF, 0xFFFFFFFF, 0x80808080]))
    return bytes(changed)


def mutate_stream(requests: list[Message], chance: random.Random) -> list[Message]:
    """Cut a stream short, repeat messages of it, or put it out of order."""
    how = chance.choice(["as it is", "cut short", "nothing", "repeated", "out of order", "too long"])
    if how == "cut short":
        return requests[: chance.randrange(len(requests) + 1)]
    if how == "nothing":
        return []
    if how == "repeated":
        return [request for request in requests for _ in range(chance.choice([1, 2]))]
    if how == "out of order":
        return chance.sample(requests, len(requests))
    return requests * 5 if how == "too long" else requests


def _mutate_message(message: Message, field: FieldDescriptor, templates: Templates, chance: random.Random) -> None:
    how = chance.random()
    if how < 0.1:
        message.ClearField(field.name)
    elif how < 0.15:
        getattr(message, field.name).SetInParent()
    elif how < 0.3:
        templates.fill(message, field)  # also next to the other one of a pair
    else:
        mutate(getattr(message, field.name), templates, chance)


def _mutate_list(values: Any, field: FieldDescriptor, templates: Templates, chance: random.Random) -> None:
    how = chance.choice(["clear", "double", "drop", "grow", "reverse", "odd", "many"])
    kept = list(values)
    del values[:]
    if how == "double" and kept:
        kept.insert(chance.randrange(len(kept)), chance.choice(kept))
    elif how == "drop" and kept:
        kept.pop(chance.randrange(len(kept)))
    elif how == "reverse":
        kept.reverse()
    if how != "clear":
        values.extend(kept)
    if field.message_type is not None:
        if how == "grow":
            values.add().CopyFrom(templates.draw(field.message_type))
    elif how in ("grow", "odd"):
        values.append(_odd(field, None, chance))
    elif how == "many":
        count = chance.choice([50, 3000])
        strings = field.type == FieldDescriptor.TYPE_STRING
        values.extend(f"made-up-{number}" if strings else _plain(field, chance) for number in range(count))


def _plain(field: FieldDescriptor, chance: random.Random) -> Any:
    if field.enum_type is not None:
        return chance.choice(field.enum_type.values).number
    if field.cpp_type in _INTEGER_BITS:
        return chance.choice([0, 1, 3, 10])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return chance.choice([0.0, 0.5, 1.0])
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return chance.random() < 0.5
    return b"" if field.type == FieldDescriptor.TYPE_BYTES else ""


def _odd(field: FieldDescriptor, value: Any, chance: random.Random) -> Any:
    if field.enum_type is not None:
        return chance.choice([-1, 0, 1, 2, 7, 99, 2**31 - 1])
    if field.cpp_type in _INTEGER_BITS:
        return _odd_integer(*_INTEGER_BITS[field.cpp_type], value or 0, chance)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return chance.choice(_FLOATS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not value
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _odd_bytes(value or b"", chance)
    return chance.choice([*_STRINGS, f"{value}", f"{value} ", f"{value}é"])


def _odd_integer(bits: int, signed: bool, value: int, chance: random.Random) -> int:
    top = 2 ** (bits - 1 if signed else bits) - 1
    low = -top - 1 if signed else 0
    powers = [2**power for power in (7, 8, 15, 16, 31, 32, 53, 63)]
    drawn: int = chance.choice(
        [0, 1, 2, value - 1, value + 1, 2 * value, low, top, top - 1, *powers, *(p - 1 for p in powers)]
    )
    return int(min(max(drawn, low), top))


def _odd_bytes(value: bytes, chance: random.Random) -> bytes:
    odd: Sequence[bytes] = [
        b"",
        b"\0" * len(value),
        b"\xff" * len(value),  # NaN as float32 and as float16
        struct.pack("<f", float("inf")) * (len(value) // 4),
        struct.pack("<f", 3e38) * (len(value) // 4),
        struct.pack("<f", 1e-40) * (len(value) // 4),
        value[:-1],
        value + b"\0",
        value * 2,
        chance.randbytes(len(value)),
        chance.randbytes(4096),
    ]
    return chance.choice(odd)
