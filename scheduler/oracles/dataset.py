"""The data-set oracle: the true labels lie in the items' metadata. For experiments."""

from collections.abc import Iterable, Iterator, Sequence

from scheduler.domain.answers import Answer
from scheduler.domain.labels import ClassIndex
from scheduler.domain.spec import metadata_field_of
from scheduler.oracles.metadata_scan import values_of
from scheduler.oracles.port import Labels, OracleJob
from scheduler.ports import Index
from sealpool.errors import FailedPrecondition, InvalidArgument
from sealpool.types import ItemId, Items
from sealpool.v1 import scheduler_pb2


class DatasetOracle:
    """Reads a class, or a list of classes, from one metadata field of each item.

    Where the campaign has an `other_class`, classes that are not the campaign's are passed over, and an item that has
    none of its other classes is of that one.

    Raises FailedPrecondition with the item and the field where the field is missing, is neither a string nor a list of
    strings, names an unknown class without an `other_class`, or has a number of classes that the task does not allow.
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


def labels_of(
    spec: scheduler_pb2.CampaignSpec, values: Iterable[tuple[ItemId, object]]
) -> dict[ItemId, tuple[int, ...]]:
    """Return what items' metadata fields say as class indices; FailedPrecondition as for the oracle."""
    classes = ClassIndex(spec)
    field = metadata_field_of(spec)
    return {item: _parse(spec, classes, item, field, value) for item, value in values}


def _read(spec: scheduler_pb2.CampaignSpec, items: Items) -> dict[ItemId, tuple[int, ...]]:
    return labels_of(spec, values_of(items, metadata_field_of(spec)))


def _parse(
    spec: scheduler_pb2.CampaignSpec, classes: ClassIndex, item: ItemId, field: str, value: object
) -> tuple[int, ...]:
    where = f"metadata field {field!r} of item {item!r}"
    if value is None:
        raise FailedPrecondition(f"{where} is missing", field=field)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FailedPrecondition(f"{where} is neither a class nor a list of classes", field=field)
    if spec.oracle.other_class:
        names = _of_the_campaign(spec, names)
    try:
        return classes.indices(where, names)
    except InvalidArgument as error:
        raise FailedPrecondition(error.message, field=field) from error


def _of_the_campaign(spec: scheduler_pb2.CampaignSpec, names: Sequence[str]) -> list[str]:
    """Return those of an item's classes that are the campaign's, each once; the other class where there is none."""
    other = spec.oracle.other_class
    own = [name for name in dict.fromkeys(names) if name in spec.classes and name != other]
    return own or [other]
