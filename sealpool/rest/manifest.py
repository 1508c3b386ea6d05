"""The manifest of a directory of labels: what was asked for, and which parts are whole."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sealpool.durable import write_durably
from sealpool.errors import FailedPrecondition, NotFound
from sealpool.rest.deciding import By, Rule

FILE = "_manifest.json"
"""Begins with "_" so that what reads a directory of Parquet files passes it over."""
_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class RestRequest:
    """What is asked for.

    Parameters
    ----------
    round
        Whose model; None means the latest.
    k, alpha, max_iterations
        Of the propagation; 0 means the learner's default.
    """

    campaign: str
    by: By = By.MODEL
    min_confidence: float = 0.0
    trust_model_above: float | None = None
    round: int | None = None
    k: int = 0
    alpha: float = 0.0
    max_iterations: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A file that is whole. `labelled` counts the items that the rule gave a label, `by_people` those of people."""

    file: str
    rows: int
    labelled: int
    by_people: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a directory holds.

    Parameters
    ----------
    pool_version
        Of the pool that was labelled, all of it.
    labels_until
        The last label that counted, by its sequence.
    seen
        Items of the pool that are dealt with in the parts, synthetic ones, which are left out, included.
    audit
        Items that were asked to be audited.
    """

    request: RestRequest
    pool: str
    task: str
    classes: Sequence[str]
    round: int | None
    pool_version: int
    labels_until: int
    parts: tuple[Part, ...] = ()
    seen: int = 0
    complete: bool = False
    audit: int = 0

    @property
    def rule(self) -> Rule:
        """How probabilities became labels."""
        request = self.request
        return Rule(
            by=request.by,
            multilabel=self.task == "multilabel",
            min_confidence=request.min_confidence,
            trust_model_above=request.trust_model_above,
        )

    @property
    def rows(self) -> int:
        """Items written."""
        return sum(part.rows for part in self.parts)

    @property
    def labelled(self) -> int:
        """Items that the rule gave a label."""
        return sum(part.labelled for part in self.parts)

    @property
    def by_people(self) -> int:
        """Items that people labelled."""
        return sum(part.by_people for part in self.parts)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write it so that after a crash the directory has the one before, or this one."""
    content = {"format": _FORMAT, **asdict(manifest)}
    write_durably(directory / FILE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(directory: Path) -> Manifest | None:
    """Return a directory's manifest, None where there is none.

    Raises
    ------
    FailedPrecondition
        It is of another version of sealpool, or damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise FailedPrecondition(f"{path} is of another version of sealpool")
        return _manifest(content)
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{path} is damaged: {error}") from error


def need_manifest(directory: Path) -> Manifest:
    """Return a directory's manifest; NotFound where there is none."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise NotFound("directory of labels (campaign label-rest writes one)", str(directory))
    return manifest


def check_same(before: Manifest, request: RestRequest, directory: Path) -> None:
    """Raise FailedPrecondition where a directory was begun with another request, naming what differs."""
    asked = replace(request, round=request.round if request.round is not None else before.request.round)
    begun = replace(before.request, round=before.round if request.round is not None else before.request.round)
    if asked == begun:
        return
    was, wanted = asdict(begun), asdict(asked)
    names = [f"{name} {was[name]} (now {wanted[name]})" for name in was if was[name] != wanted[name]]
    raise FailedPrecondition(
        f"{directory} was begun with {', '.join(names)}: restart it (--restart), or take another directory"
    )


def _manifest(content: Mapping[str, object]) -> Manifest:
    fields = dict(content)
    request = dict(_mapping(fields.pop("request")))
    parts = fields.pop("parts")
    if not isinstance(parts, list):
        raise TypeError("parts is no list")
    return Manifest(
        request=RestRequest(**{**request, "by": By(str(request["by"]))}),  # type: ignore[arg-type]
        parts=tuple(Part(**_mapping(part)) for part in parts),  # type: ignore[arg-type]
        **fields,  # type: ignore[arg-type]
    )


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value
