"""What PromQL expressions are made of: their vector selectors, and the sides of their comparisons."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
    |(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?(?:(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*)?|\.\d+)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<braces>\{(?:[^"'}]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*\})
    |(?P<range>\[[^\]]*\])
    |(?P<sign>==|!=|>=|<=|[-+*/%^<>(),@])""",
    re.VERBOSE | re.IGNORECASE,
)
_AGGREGATIONS = {"sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values"} | {
    "bottomk",
    "topk",
    "quantile",
}
_WITH_LABELS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"bool", "offset", "and", "or", "unless", "atan2", "inf", "nan", "start", "end"}
_SETS = {"or", "and", "unless"}
_COMPARISONS = {"==", "!=", ">", "<", ">=", "<="}


class Token(NamedTuple):
    """A piece of an expression, and where it stands."""

    kind: str
    text: str
    start: int
    end: int


def selectors(expression: str) -> list[str]:
    """Return the vector selectors of an expression, without range and offset, each once."""
    return list(dict.fromkeys(_selectors(_tokens(expression))))


def operands(expression: str) -> list[str]:
    """Return what an expression compares or joins: its parts without comparisons and set operators.

    `a / b > 0.1 and on (x) (c < d)` has `a / b`, `c` and `d`. Numbers alone are left out.
    """
    expression = _bare(expression)
    for signs in (_SETS, _COMPARISONS):
        parts = _split(expression, signs)
        if len(parts) > 1:
            return [operand for part in parts for operand in operands(_without_matching(part))]
    alone = [token.kind for token in _tokens(expression)] == ["number"]
    return [] if alone or not expression else [expression]


def metric_of(selector: str) -> str:
    """Return the name of the metric, or the selector itself where it has none before its braces."""
    return selector.partition("{")[0] or selector


def _tokens(expression: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise AssertionError(f"no PromQL at {expression[at : at + 20]!r} of {expression}")
        if match.lastgroup != "skip":
            found.append(Token(str(match.lastgroup), match.group(), match.start(), match.end()))
        at = match.end()
    return found


def _selectors(tokens: Sequence[Token]) -> Iterator[str]:
    at = 0
    while at < len(tokens):
        token, after = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else None
        at += 1
        if token.kind == "braces":
            yield token.text
        if token.kind != "name":
            continue
        word = token.text.lower()
        if word in _WITH_LABELS and after is not None and after.text == "(":
            while tokens[at].text != ")":
                at += 1
        elif word in _WITH_LABELS | _WORDS | _AGGREGATIONS or (after is not None and after.text == "("):
            continue
        elif after is not None and after.kind == "braces":
            yield token.text + after.text
            at += 1
        else:
            yield token.text


def _split(expression: str, signs: set[str]) -> list[str]:
    parts, depth, begin = [], 0, 0
    for token in _tokens(expression):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.text.lower() in signs:
            parts.append(expression[begin : token.start].strip())
            begin = token.end
    return [*parts, expression[begin:].strip()]


def _without_matching(part: str) -> str:
    """Leave out `bool`, `on (…)`, `ignoring (…)` and `group_left (…)` before a right-hand side."""
    found = re.match(r"\s*(bool\b|(on|ignoring|group_left|group_right)\b\s*(\([^)]*\))?)", part)
    return part if found is None else _without_matching(part[found.end() :])


def _bare(expression: str) -> str:
    """Leave out parentheses around the whole."""
    expression = expression.strip()
    tokens = _tokens(expression)
    if not tokens or tokens[0].text != "(":
        return expression
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0:
            return _bare(expression[1:-1]) if token.end == len(expression) else expression
    return expression
