"""JSON schemas of messages, from their descriptors: what `reading` takes and protobuf's JSON mapping writes."""

from collections.abc import Collection
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from scheduler.http.reading import INTEGERS, LONG, NOT_FINITE

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/"
_TIMESTAMP = "google.protobuf.Timestamp"


class Schemas:
    """Collects the schemas of the messages that were asked for, and of all within them, by their names."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def of(self, message: Descriptor, *, without: Collection[str] = ()) -> Schema:
        """Return a reference to the schema of a message.

        Parameters
        ----------
        without
            Fields that are left out, as they are told in another way.
        """
        if message.name not in self.components:
            self.components[message.name] = {}  # it may hold itself
            self.components[message.name] = self._object(message, without)
        return {"$ref": _REFERENCE + message.name}

    def field(self, field: FieldDescriptor) -> Schema:
        """Return the schema of a field."""
        one = self._one(field)
        return {"type": "array", "items": one} if field.is_repeated else one

    def _object(self, message: Descriptor, without: Collection[str]) -> Schema:
        fields = [field for field in message.fields if field.name not in without]
        schema: Schema = {
            "type": "object",
            "properties": {field.name: self.field(field) for field in fields},
            "additionalProperties": False,
        }
        exclusive = [
            {"not": {"required": [one.name, other.name]}}
            for oneof in message.oneofs
            for position, one in enumerate(oneof.fields)
            for other in oneof.fields[position + 1 :]
        ]
        return {**schema, "allOf": exclusive} if exclusive else schema

    def _one(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            is_time = field.message_type.full_name == _TIMESTAMP
            return {"type": "string", "format": "date-time"} if is_time else self.of(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        return _scalar(field)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        self.components.setdefault(enum.name, {"type": "string", "enum": [value.name for value in enum.values]})
        return {"$ref": _REFERENCE + enum.name}


def _scalar(field: FieldDescriptor) -> Schema:
    if field.cpp_type in INTEGERS:
        return _integer(field)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"type": "boolean"}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return {"type": "string"}
    number = {"type": "number", "format": "double"}
    return {"anyOf": [number, {"type": "string", "enum": list(NOT_FINITE)}]}


def _integer(field: FieldDescriptor) -> Schema:
    low, high = INTEGERS[field.cpp_type]
    number: Schema = {"type": "integer", "minimum": low, "maximum": high}
    if field.cpp_type not in LONG:
        return {**number, "format": "uint32" if low == 0 else "int32"}
    sign = "" if low == 0 else "-?"
    return {"anyOf": [{"type": "string", "pattern": f"^{sign}[0-9]{{1,20}}$"}, number]}
