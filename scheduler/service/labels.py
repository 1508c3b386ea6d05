"""Labels in and out."""

from collections.abc import Callable, Iterator

from scheduler import messages
from scheduler.domain.states import LabelPurpose
from scheduler.ports import Index
from scheduler.service.submitting import Submitter
from scheduler.storage import campaigns, labels
from scheduler.storage.store import Store
from sealpool.v1 import scheduler_pb2

LABELS_A_MESSAGE = 2_000


class LabelService:
    """Takes labels and lists them. The parameters are those of `Submitter`."""

    def __init__(self, *, store: Store, index: Index, max_labels: int, on_labels: Callable[[str], None]) -> None:
        self._store = store
        self.submit = Submitter(store=store, index=index, max_labels=max_labels, on_labels=on_labels).submit

    def list(self, request: scheduler_pb2.ListLabelsRequest) -> Iterator[list[scheduler_pb2.Label]]:
        """Yield labels as they were when the call began, in chunks, in the order they were committed."""
        with self._store.reading() as session:
            campaign = campaigns.get(session, request.campaign)
        classes = campaigns.spec_of(campaign).classes
        after = request.after_sequence
        while after < campaign.last_sequence:
            with self._store.reading() as session:
                page = labels.page(
                    session,
                    campaign.id,
                    purpose=messages.purpose_of("purpose", request.purpose) or LabelPurpose.TRAINING,
                    only_effective=request.only_effective,
                    after=after,
                    until=campaign.last_sequence,
                    limit=LABELS_A_MESSAGE,
                )
            if not page:
                return
            yield [messages.label_message(row, classes) for row in page]
            after = page[-1].sequence
