"""What annotators said, read back."""

from collections.abc import Iterator

from scheduler import messages
from scheduler.service.checks import check_text
from scheduler.storage import annotations, campaigns
from scheduler.storage.store import Store
from sealpool.v1 import scheduler_pb2
from sealpool.validation import MAX_ID_BYTES

ANNOTATIONS_A_MESSAGE = 1_000
ANNOTATION_BYTES_A_MESSAGE = 1024 * 1024


class AnnotationService:
    """Lists annotations."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    def list(self, request: scheduler_pb2.ListAnnotationsRequest) -> Iterator[list[scheduler_pb2.Annotation]]:
        """Yield annotations as they were when the call began, in bounded chunks, in the order they were committed."""
        check_text("item_id", request.item_id, max_bytes=MAX_ID_BYTES)
        check_text("annotator", request.annotator, max_bytes=128)
        with self._store.reading() as session:
            campaign = campaigns.get(session, request.campaign)
            until = annotations.last_sequence(session, campaign.id)
        classes = campaigns.spec_of(campaign).classes
        after = request.after_sequence
        while after < until:
            with self._store.reading() as session:
                page = annotations.page(
                    session,
                    campaign.id,
                    after=after,
                    until=until,
                    item_id=request.item_id,
                    annotator=request.annotator,
                    limit=ANNOTATIONS_A_MESSAGE,
                )
            if not page:
                return
            yield from _in_messages([messages.annotation_message(row, classes) for row in page])
            after = page[-1].sequence


def _in_messages(found: list[scheduler_pb2.Annotation]) -> Iterator[list[scheduler_pb2.Annotation]]:
    """Yield annotations in chunks of bounded size: a thousand comments may be 16 MiB."""
    chunk: list[scheduler_pb2.Annotation] = []
    size = 0
    for annotation in found:
        if chunk and size + annotation.ByteSize() > ANNOTATION_BYTES_A_MESSAGE:
            yield chunk
            chunk, size = [], 0
        chunk.append(annotation)
        size += annotation.ByteSize()
    yield chunk
