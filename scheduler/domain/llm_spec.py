"""The part of a spec that says which language model is asked, and how."""

import math

from sealpool.errors import InvalidArgument
from sealpool.v1 import scheduler_pb2
from sealpool.validation import check_name
from sealpool.vocabulary.checking import check_choice, check_not_negative, check_range

ORACLE = "llm"
DEFAULT_ENDPOINT = "default"
DEFAULT_EXAMPLES = 4
DEFAULT_TEXT_CHARACTERS = 8_000
MAX_EXAMPLES = 50
MAX_SAMPLES = 20
MAX_TEMPERATURE = 2.0
SEVERAL_SAMPLES_TEMPERATURE = 0.7
MAX_MODEL_BYTES = 120
"""So that "llm:<model>" is an annotator's name."""
MAX_INSTRUCTIONS_BYTES = 16 * 1024
MAX_DEFINITION_BYTES = 16 * 1024
MAX_TEMPLATE_BYTES = 64 * 1024
MAX_TEXT_CHARACTERS = 200_000

_FIELD = "spec.oracle.llm"


def check_llm(spec: scheduler_pb2.CampaignSpec) -> None:
    """Check every field of spec.oracle.llm.

    It may stand beside another oracle: paraphrases are asked of it then. Whether the endpoint exists and the template
    renders is for the oracle's own `check`.

    Raises
    ------
    InvalidArgument
        With the field at fault, for example "spec.oracle.llm.model".
    """
    if spec.oracle.name != ORACLE and not spec.oracle.HasField("llm"):
        return
    llm = spec.oracle.llm
    if llm.endpoint:
        check_name(f"{_FIELD}.endpoint", llm.endpoint)
    if not 1 <= len(llm.model.encode()) <= MAX_MODEL_BYTES:
        raise InvalidArgument(f"{_FIELD}.model", f"is empty or over {MAX_MODEL_BYTES} bytes: name a model")
    _check_texts(spec)
    check_range(f"{_FIELD}.examples", llm.examples, 0, MAX_EXAMPLES)
    check_range(f"{_FIELD}.samples", llm.samples, 0, MAX_SAMPLES)
    check_range(f"{_FIELD}.temperature", llm.temperature, 0, MAX_TEMPERATURE)
    if samples_of(llm) > 1 and temperature_of(llm) == 0:
        raise InvalidArgument(f"{_FIELD}.temperature", "is 0: several samples would all be the same")
    check_range(f"{_FIELD}.min_confidence", llm.min_confidence, 0, 1)
    check_range(f"{_FIELD}.audit_share", llm.audit_share, 0, 1)
    check_not_negative(f"{_FIELD}.max_cost", llm.max_cost)
    check_range(f"{_FIELD}.max_text_characters", llm.max_text_characters, 0, MAX_TEXT_CHARACTERS)


def endpoint_of(llm: scheduler_pb2.LlmSpec) -> str:
    """Return the name of the endpoint."""
    return llm.endpoint or DEFAULT_ENDPOINT


def examples_of(llm: scheduler_pb2.LlmSpec) -> int:
    """Return how many labelled items are shown."""
    return llm.examples if llm.HasField("examples") else DEFAULT_EXAMPLES


def samples_of(llm: scheduler_pb2.LlmSpec) -> int:
    """Return how many answers are asked for an item."""
    return llm.samples or 1


def temperature_of(llm: scheduler_pb2.LlmSpec) -> float:
    """Return the temperature that answers are drawn with."""
    if llm.HasField("temperature"):
        return llm.temperature
    return SEVERAL_SAMPLES_TEMPERATURE if samples_of(llm) > 1 else 0.0


def max_text_characters_of(llm: scheduler_pb2.LlmSpec) -> int:
    """Return how many characters of a text are shown."""
    return llm.max_text_characters or DEFAULT_TEXT_CHARACTERS


def annotator_of(llm: scheduler_pb2.LlmSpec) -> str:
    """Return in whose name the model's labels stand."""
    return annotator_name(llm.model)


def annotator_name(model: str) -> str:
    """Return in whose name a model's labels stand."""
    return f"llm:{model}"


def max_cost_of(llm: scheduler_pb2.LlmSpec) -> float:
    """Return the money that may be spent, infinity where there is no limit."""
    return llm.max_cost or math.inf


def max_tokens_of(llm: scheduler_pb2.LlmSpec) -> float:
    """Return the tokens that may be spent, infinity where there is no limit."""
    return llm.max_tokens or math.inf


def _check_texts(spec: scheduler_pb2.CampaignSpec) -> None:
    llm = spec.oracle.llm
    for field, text, limit in (
        ("instructions", llm.instructions, MAX_INSTRUCTIONS_BYTES),
        ("template", llm.template, MAX_TEMPLATE_BYTES),
    ):
        if len(text.encode()) > limit:
            raise InvalidArgument(f"{_FIELD}.{field}", f"is over {limit:,} bytes")
    seen: set[str] = set()
    for each in llm.definitions:
        check_choice(f"{_FIELD}.definitions", each.name, frozenset(spec.classes))
        if each.name in seen:
            raise InvalidArgument(f"{_FIELD}.definitions", f"{each.name!r} is defined twice")
        if not 1 <= len(each.definition.encode()) <= MAX_DEFINITION_BYTES:
            raise InvalidArgument(f"{_FIELD}.definitions", f"{each.name!r} has a definition that is empty or too long")
        seen.add(each.name)
