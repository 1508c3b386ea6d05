"""The data-set oracle: the true labels lie in the items' metadata. For experiments."""

from collections.abc import Iterator, Sequence

from scheduler.domain.answers import Answer
from scheduler.domain.labels import ClassIndex
from scheduler.domain.spec import metadata_field_of
from scheduler.oracles.port import Labels, OracleJob
from scheduler.ports import Index
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.types import ItemId, Items
from sealpool.v1 import scheduler_pb2


class DatasetOracle:
    """Reads a class, or a list of classes, from one metadata field of each item.

    Raises FailedPrecondition with the item and the field where the field is missing, is neither a string nor a list of
    strings, names an unknown class, or has a number of classes that the task does not allow.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    def annotator(self, spec: scheduler_pb2.CampaignSpec) -> str:  # noqa: ARG002 - the port's
        """Return in whose name its labels stand."""
        return "dataset"

    def check(self, spec: scheduler_pb2.CampaignSpec) -> None:
        """Read the label of one item of each pool, drawn at random.

        One shows a wrong field name and classes that are written otherwise, which are wrong for all items. A fault of
        single items is left to the rounds: finding it would take reading the whole pool while the caller waits.
        """
        for pool in filter(None, (spec.pool, spec.evaluation_pool)):
            ids = self._index.sample_items(pool, 1, seed=0)
            if not ids:
                continue
            items = self._index.get_items(pool, ids, vectors=False, payloads=True, allow_missing=True)
            try:
                _read(spec, items)
            except FailedPrecondition as error:
                field = "spec.oracle.metadata_field"
                raise FailedPrecondition(f"{field}: pool {pool!r}: {error.message}", field=field) from error

    def label(self, job: OracleJob) -> Iterator[Sequence[Answer]]:
        """Read the labels of items of the pool, as far as it still has them."""
        if job.item_ids:
            items = self._index.get_items(job.spec.pool, job.item_ids, vectors=False, payloads=True, allow_missing=True)
            labels = _read(job.spec, items)
            # In the order picked: where the budget has not room for all, the most wanted are kept.
            yield [Answer(item_id=item, classes=labels[item]) for item in job.item_ids if item in labels]

    def held_out(self, spec: scheduler_pb2.CampaignSpec) -> Labels:
        """Read the labels of all items of the evaluation pool."""
        labels: dict[ItemId, tuple[int, ...]] = {}
        for items in self._index.scan_items(spec.evaluation_pool, vectors=False, payloads=True):
            labels.update(_read(spec, items))
        return labels


def _read(spec: scheduler_pb2.CampaignSpec, items: Items) -> dict[ItemId, tuple[int, ...]]:
    classes = ClassIndex(spec)
    field = metadata_field_of(spec)
    payloads = items.payloads or ()
    return {
        item: _parse(classes, item, field, payload.metadata.get(field))
        for item, payload in zip(items.ids, payloads, strict=True)
    }


def _parse(classes: ClassIndex, item: ItemId, field: str, value: object) -> tuple[int, ...]:
    where = f"metadata field {field!r} of item {item!r}"
    if value is None:
        raise FailedPrecondition(f"{where} is missing", field=field)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FailedPrecondition(f"{where} is neither a class nor a list of classes", field=field)
    try:
        return classes.indices(where, names)
    except InvalidArgument as error:
        raise FailedPrecondition(error.message, field=field) from error
