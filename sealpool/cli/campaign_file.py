"""Campaigns in files: `sealpool campaign validate|apply FILE`, and `campaign show --yaml`.

A file is a CampaignSpec in YAML: the fields' names are those of scheduler.proto, an enum is its word in lower case
("multiclass"), and what is left out has its default.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from sealpool.cli.options import SCHEDULER, AsJson, Scheduler, scheduler_client
from sealpool.cli.output import answer_json, say
from sealpool.cli.pairs import ENCODER, enum_words
from sealpool.errors import AlreadyExists, InvalidArgument
from sealpool.v1 import scheduler_pb2

File = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A campaign in YAML.", show_default=False)
]


def validate(file: File, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Check a campaign in a file, pools and all, and begin nothing. A campaign that runs is compared with it.

    Example: `sealpool campaign validate spam.yaml`
    """
    _settle(read_spec(file), scheduler, as_json=as_json, validate_only=True)


def apply(file: File, *, scheduler: Scheduler = SCHEDULER, as_json: AsJson = False) -> None:
    """Begin the campaign that a file describes, or change the one that runs to it; done twice, it changes nothing.

    What cannot change while a campaign runs (its pool, say) is refused, and named.

    Example: `sealpool campaign apply spam.yaml`
    """
    _settle(read_spec(file), scheduler, as_json=as_json, validate_only=False)


def _settle(spec: scheduler_pb2.CampaignSpec, scheduler: str, *, as_json: bool, validate_only: bool) -> None:
    changed: Sequence[str] = ()
    with scheduler_client(scheduler) as client:
        try:
            client.create_campaign(spec, validate_only=validate_only)
            begins = True
        except AlreadyExists:
            changed = client.update_campaign(spec, validate_only=validate_only).changed
            begins = False
    if as_json:
        answer_json({"campaign": spec.name, "begins": begins, "changed": list(changed), "done": not validate_only})
        return
    would = "would " if validate_only else ""
    if begins:
        say(f"campaign {spec.name} {would}{'begin' if validate_only else 'begins'}")
    elif changed:
        say(f"campaign {spec.name} runs; {would}{'change' if validate_only else 'changed'}: {', '.join(changed)}")
    else:
        say(f"campaign {spec.name} runs as the file says: nothing to do")


def read_spec(file: Path) -> scheduler_pb2.CampaignSpec:
    """Return the spec that a file describes.

    Raises
    ------
    InvalidArgument
        It is no YAML, or a field is unknown or of another type; the message names file and field.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_OnceLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgument(str(file), f"is not YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise InvalidArgument(str(file), "is not a mapping of a campaign's fields")
    spec = scheduler_pb2.CampaignSpec()
    wire = _wire(content, spec.DESCRIPTOR, file, "")
    try:
        json_format.ParseDict(wire, spec)
    except json_format.ParseError as error:
        raise InvalidArgument(str(file), str(error)) from error
    return spec


def to_yaml(spec: scheduler_pb2.CampaignSpec) -> str:
    """Return a spec as a file has it, without what has its default."""
    return str(yaml.safe_dump(_told(spec), sort_keys=False, allow_unicode=True, width=100))


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def _wire(content: Mapping[str, Any], descriptor: Any, file: Path, where: str) -> dict[str, Any]:
    """Return a mapping as protobuf's JSON reads it: enums under their long names."""
    wire = {}
    for name, value in content.items():
        field = descriptor.fields_by_name.get(name)
        path = f"{where}{name}"
        if field is None:
            raise InvalidArgument(str(file), f"{path}: no such field; there are {', '.join(descriptor.fields_by_name)}")
        values = value if field.is_repeated and isinstance(value, list) else [value]
        written = [_one(one, field, file, path) for one in values]
        wire[name] = written if isinstance(value, list) else written[0]
    return wire


def _one(value: Any, field: Any, file: Path, path: str) -> Any:
    if field.message_type is not None:
        if field.message_type.full_name == ENCODER and isinstance(value, str):
            return {"encoder": value, "normalize": True}
        if not isinstance(value, Mapping):
            raise InvalidArgument(str(file), f"{path}: {value!r} is not a mapping of {', '.join(_names(field))}")
        return _wire(value, field.message_type, file, f"{path}.")
    if field.enum_type is not None:
        words = enum_words(field)
        if str(value).lower() not in words:
            raise InvalidArgument(str(file), f"{path}: {value!r} is none of {', '.join(words)}")
        return words[str(value).lower()]
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not isinstance(value, str):
        raise InvalidArgument(str(file), f"{path}: {value!r} is not a text: put it in quotes")
    return value


def _names(field: Any) -> list[str]:
    return list(field.message_type.fields_by_name)


def _told(message: Message) -> dict[str, Any]:
    """Return the fields that were told, under the names of the contract."""
    return {field.name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: Any, value: Any) -> Any:
    if field.is_repeated:
        return [_plain_one(field, one) for one in value]
    return _plain_one(field, value)


def _plain_one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _told(value)
    if field.enum_type is not None:
        return {number: word for word, number in enum_words(field).items()}[value]
    return value
