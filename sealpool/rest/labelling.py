"""Labels for every item of a campaign's pool, written part by part."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from sealpool import failpoint
from sealpool.durable import make_directory, sync_directory
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.rest.deciding import By
from sealpool.rest.manifest import FILE, Manifest, RestRequest, check_same, read_manifest, write_manifest
from sealpool.rest.parts import to_table, write_part
from sealpool.rest.people import GivenLabels, LabelSource, read_labels
from sealpool.rest.scoring import Index, Learner, Scored, score_pool
from sealpool.types import ItemId, LabelledItems
from sealpool.v1 import common_pb2, scheduler_pb2

PART_ROWS = 100_000

_TASKS = {
    common_pb2.TASK_KIND_BINARY: "binary",
    common_pb2.TASK_KIND_MULTICLASS: "multiclass",
    common_pb2.TASK_KIND_MULTILABEL: "multilabel",
}


def label_rest(
    request: RestRequest,
    directory: Path,
    *,
    scheduler: LabelSource,
    learner: Learner,
    index: Index,
    restart: bool = False,
    part_rows: int = PART_ROWS,
    progress: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Label every item of a campaign's pool, and write them to a directory of Parquet parts.

    Items that people labelled keep that label. Synthetic items are left out. What a killed run has written stays, and
    the next one goes on behind it, with the same model, the same labels and the same version of the pool. A directory
    that is complete is left as it is.

    Parameters
    ----------
    restart
        Forget what the directory has.
    part_rows
        Items a part, which is what is held in memory at once.
    progress
        Told how many items of the pool are written.

    Raises
    ------
    InvalidArgument
        A number of the request is out of range.
    NotFound
        No such campaign, or the learner has no checkpoint of that round (any more).
    FailedPrecondition
        The directory was begun with another request; the pool, or the campaign, has changed since; the pool is empty;
        no label can be spread.
    """
    _check(request)
    make_directory(directory)
    if restart:
        _clear(directory)
    before = read_manifest(directory)
    if before is not None:
        check_same(before, request, directory)
        if before.complete:
            return before
        request = replace(request, round=before.round)
    spec = scheduler.get_campaign(request.campaign).spec
    given = read_labels(scheduler, spec, until=None if before is None else before.labels_until)
    if before is not None:
        _check_campaign(before, spec)
    scored = score_pool(
        request,
        spec,
        _examples(spec, given),
        learner=learner,
        index=index,
        skip=0 if before is None else before.seen,
    )
    return _write(directory, request, spec, given, scored, before, part_rows=part_rows, progress=progress)


def _write(
    directory: Path,
    request: RestRequest,
    spec: scheduler_pb2.CampaignSpec,
    given: GivenLabels,
    scored: Iterator[Scored],
    before: Manifest | None,
    *,
    part_rows: int,
    progress: Callable[[int], None],
) -> Manifest:
    manifest, held, holding = before, list[pa.Table](), 0
    for chunk in scored:
        if manifest is None:
            manifest = _begin(directory, request, spec, given, chunk)
        _check_version(manifest, chunk)
        start = 0
        while start < len(chunk):
            stop = min(len(chunk), start + part_rows - holding)
            held.append(to_table(manifest, given, chunk.part(start, stop)))
            holding += stop - start
            start = stop
            if holding == part_rows:
                manifest = _add_part(directory, manifest, held, holding)
                held, holding = [], 0
                progress(manifest.seen)
    if manifest is None:
        raise FailedPrecondition(f"pool {spec.pool!r} is empty")
    if holding:
        manifest = _add_part(directory, manifest, held, holding)
        progress(manifest.seen)
    manifest = replace(manifest, complete=True)
    write_manifest(directory, manifest)
    return manifest


def _begin(
    directory: Path, request: RestRequest, spec: scheduler_pb2.CampaignSpec, given: GivenLabels, first: Scored
) -> Manifest:
    manifest = Manifest(
        request=request,
        pool=spec.pool,
        task=_TASKS[spec.task],
        classes=list(spec.classes),
        round=first.round,
        pool_version=first.pool_version,
        labels_until=given.sequence,
    )
    write_manifest(directory, manifest)
    return manifest


def _add_part(directory: Path, manifest: Manifest, tables: list[pa.Table], seen: int) -> Manifest:
    part = write_part(directory, len(manifest.parts), tables)
    failpoint.reach("rest.part.before_manifest")
    manifest = replace(manifest, parts=(*manifest.parts, part), seen=manifest.seen + seen)
    write_manifest(directory, manifest)
    failpoint.reach("rest.part.after_manifest")
    return manifest


def _examples(spec: scheduler_pb2.CampaignSpec, given: GivenLabels) -> LabelledItems:
    """Return what labels are spread from: what models are trained on, so that audits judge both alike."""
    column = {name: number for number, name in enumerate(spec.classes)}
    return LabelledItems(
        ids=[ItemId(item_id) for item_id in given.training],
        labels=[[column[name] for name in names] for names in given.training.values()],
    )


def _check(request: RestRequest) -> None:
    if not 0 <= request.min_confidence <= 1:
        raise InvalidArgument("min_confidence", f"{request.min_confidence:g} is not between 0 and 1")
    if request.trust_model_above is not None:
        if request.by is not By.BOTH:
            raise InvalidArgument("trust_model_above", "has a meaning only where both ways are asked")
        if not 0 <= request.trust_model_above <= 1:
            raise InvalidArgument("trust_model_above", f"{request.trust_model_above:g} is not between 0 and 1")


def _check_campaign(before: Manifest, spec: scheduler_pb2.CampaignSpec) -> None:
    if (before.pool, list(before.classes), before.task) != (spec.pool, list(spec.classes), _TASKS[spec.task]):
        raise FailedPrecondition(f"campaign {spec.name!r} is not the one that the labels were begun for: restart them")


def _check_version(manifest: Manifest, chunk: Scored) -> None:
    if chunk.pool_version != manifest.pool_version:
        raise FailedPrecondition(
            f"pool {manifest.pool!r} is at version {chunk.pool_version}, and was at {manifest.pool_version} when its "
            "labels were begun: restart them"
        )


def _clear(directory: Path) -> None:
    # The manifest first: without it the parts mean nothing.
    (directory / FILE).unlink(missing_ok=True)
    sync_directory(directory)
    for pattern in ("part-*.parquet", ".part-*.parquet.new"):
        for path in directory.glob(pattern):
            path.unlink()
