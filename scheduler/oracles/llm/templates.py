"""Templates of questions: Jinja, cut down to what cannot run away.

A template comes from whoever creates a campaign, and runs in the scheduler. Jinja's sandbox keeps it from Python's
insides, but not from taking all memory or time ('{{ "a" * 10**10 }}'). So what is left is: printing, `if`, `for` two
deep, comparisons and a few filters; without calls, arithmetic and assignments nothing can grow by itself. Loops go over
lists alone, and are counted and timed: two of them over an item's letters would print nothing for hours.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sealpool.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from jinja2.nodes import Node

FIELD = "spec.oracle.llm.template"
MAX_CHARACTERS = 1_000_000
"""Of a whole question: 50 examples and an item of the longest default, with room."""
MAX_LOOPS = 2
MAX_DEPTH = 24
MAX_SEPARATOR = 16
MAX_STEPS = 100_000
"""Of all loops of one question: examples and classes take a few thousand."""
MAX_SECONDS = 5.0
_STEPS = "sealpool_steps"

_STATEMENTS = ("Template", "Output", "TemplateData", "For", "If")
_EXPRESSIONS = ("Name", "Const", "List", "Getattr", "Getitem", "Slice", "Filter", "Test", "Keyword")
_LOGIC = ("Compare", "Operand", "And", "Or", "Not", "CondExpr")
_ALLOWED = frozenset(_STATEMENTS + _EXPRESSIONS + _LOGIC)
_FILTERS = ("upper", "lower", "trim", "truncate", "length", "default", "first", "last")
_TESTS = ("defined", "undefined", "none", "string", "eq", "equalto", "in")

DEFAULT_TEMPLATE = """\
{% if instructions %}{{ instructions }}

{% endif %}The classes:
{% for class in classes %}- {{ class.name }}{% if class.definition %}: {{ class.definition }}{% endif %}

{% endfor %}
{% for example in examples %}{% if loop.first %}Texts that people have labelled:

{% endif %}{{ example.text | fenced }}
classes: {{ example.classes | quoted }}

{% endfor %}The text to label:

{{ text | fenced }}
"""


class QuestionTemplate:
    """A template that was checked.

    Raises
    ------
    InvalidArgument
        It is no template, or has something that is not allowed here: the message says which line.
    FailedPrecondition
        Jinja2 is not installed.
    """

    def __init__(self, source: str) -> None:
        try:
            from jinja2 import TemplateSyntaxError
        except ImportError as error:
            raise missing("Jinja2") from error
        environment = _environment()
        try:
            tree = environment.parse(source)
            _check(tree, loops=0, depth=0)
            _count_loops(tree)
            self._template: Template = environment.from_string(tree)
        except (TemplateSyntaxError, RecursionError) as error:
            raise InvalidArgument(FIELD, f"line {getattr(error, 'lineno', 1)}: {error}") from error

    def render(self, variables: Mapping[str, object]) -> str:
        """Return the question, or raise InvalidArgument where a variable has not what the template takes from it."""
        from jinja2 import TemplateError

        parts: list[str] = []
        left = MAX_CHARACTERS
        try:
            for part in self._template.generate({**variables, _STEPS: _Steps()}):
                left -= len(part)
                if left < 0:
                    raise InvalidArgument(FIELD, f"makes questions of over {MAX_CHARACTERS:,} characters")
                parts.append(part)
        except (TemplateError, TypeError, ValueError, LookupError, AssertionError) as error:  # filters assert
            raise InvalidArgument(FIELD, f"cannot be rendered: {error}") from error
        return "".join(parts)


class _Steps:
    """What the loops of one question may take."""

    def __init__(self) -> None:
        self._left = MAX_STEPS
        self._until = time.monotonic() + MAX_SECONDS

    def of(self, values: object) -> Iterator[object]:
        for value in values if isinstance(values, Mapping) else _list(values):
            self._left -= 1
            if self._left < 0 or time.monotonic() > self._until:
                raise ValueError(f"its loops take over {MAX_STEPS:,} steps or {MAX_SECONDS:g} s")
            yield value


def fence(text: str, mark: str) -> str:
    """Put a text between two lines that it cannot contain."""
    return f"<<<{mark}\n{text}\n{mark}>>>"


def missing(package: str) -> FailedPrecondition:
    """Return the error that says how to install what language models need."""
    return FailedPrecondition(f"a language model needs {package}: pip install 'sealpool[llm]'")


def _environment() -> "Environment":
    from jinja2 import StrictUndefined, pass_context
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    environment.tests = {name: environment.tests[name] for name in _TESTS}

    @pass_context
    def fenced(context: Context, text: object) -> str:
        return fence(str(text), str(context["fence"]))

    @pass_context
    def counted(context: Context, values: object) -> Iterator[object]:
        steps: _Steps = context[_STEPS]
        return steps.of(values)

    environment.filters.update(fenced=fenced, quoted=_quoted, join=_join, counted=counted)
    return environment


def _quoted(values: Sequence[object]) -> str:
    return json.dumps([str(value) for value in _list(values)], ensure_ascii=False)


def _join(values: Sequence[object], separator: str = ", ") -> str:
    if len(separator) > MAX_SEPARATOR:
        raise ValueError(f"join takes a separator of at most {MAX_SEPARATOR} characters")
    return separator.join(str(value) for value in _list(values))


def _list(values: object) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise TypeError("for, join and quoted take a list")
    return values


def _count_loops(tree: "Node") -> None:
    from jinja2.nodes import Filter, For

    for loop in list(tree.find_all(For)):
        loop.iter = Filter(loop.iter, "counted", [], [], None, None, lineno=loop.lineno)


def _check(node: "Node", *, loops: int, depth: int) -> None:
    kind = type(node).__name__
    if kind not in _ALLOWED:
        raise InvalidArgument(FIELD, f"line {node.lineno}: has {kind}, which a question does not need")
    loops += kind == "For"
    if loops > MAX_LOOPS or depth > MAX_DEPTH:
        raise InvalidArgument(FIELD, f"line {node.lineno}: is nested too deep; loops go {MAX_LOOPS} deep")
    for child in node.iter_child_nodes():
        _check(child, loops=loops, depth=depth + 1)
