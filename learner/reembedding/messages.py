"""Re-embedding jobs as messages, and back."""

from learner.encoders import EmbedOptions, Pooling
from learner.reembedding.store import CheckpointName, Job, JobState, ReembeddingRequest
from sealpool.errors import InvalidArgument
from sealpool.v1 import learner_pb2

_STATES = {
    JobState.RUNNING: learner_pb2.JOB_STATE_RUNNING,
    JobState.FINISHED: learner_pb2.JOB_STATE_FINISHED,
    JobState.FAILED: learner_pb2.JOB_STATE_FAILED,
    JobState.CANCELLED: learner_pb2.JOB_STATE_CANCELLED,
}
_POOLINGS = {
    learner_pb2.POOLING_UNSPECIFIED: Pooling.MEAN,
    learner_pb2.POOLING_MEAN: Pooling.MEAN,
    learner_pb2.POOLING_CLS: Pooling.CLS,
}
_POOLING_NUMBERS = {Pooling.MEAN: learner_pb2.POOLING_MEAN, Pooling.CLS: learner_pb2.POOLING_CLS}


def read_start(message: learner_pb2.StartReembeddingRequest) -> ReembeddingRequest:
    """Decode a request; `ReembeddingJobs.start` checks it. Raises InvalidArgument for an unknown pooling."""
    encoder = message.encoder
    pooling = _POOLINGS.get(encoder.pooling)
    if pooling is None:
        raise InvalidArgument("encoder.pooling", f"{encoder.pooling} is unknown")
    checkpoint = message.checkpoint
    return ReembeddingRequest(
        source_pool=message.source_pool,
        target_pool=message.target_pool,
        options=EmbedOptions(
            encoder=encoder.encoder, pooling=pooling, normalize=encoder.normalize, max_tokens=encoder.max_tokens
        ),
        checkpoint=CheckpointName(campaign=checkpoint.campaign, round=checkpoint.round)
        if message.HasField("checkpoint")
        else None,
        alias=message.alias,
    )


def to_message(job: Job) -> learner_pb2.ReembeddingJob:
    """Encode a job."""
    return learner_pb2.ReembeddingJob(
        id=job.id,
        state=_STATES[job.state],
        items=job.items,
        done=job.done,
        rows_per_second=job.rows_per_second,
        error=job.error,
        request=_to_request(job.request),
    )


def _to_request(request: ReembeddingRequest) -> learner_pb2.StartReembeddingRequest:
    options, checkpoint = request.options, request.checkpoint
    return learner_pb2.StartReembeddingRequest(
        source_pool=request.source_pool,
        target_pool=request.target_pool,
        encoder=learner_pb2.EmbedHeader(
            encoder=options.encoder,
            pooling=_POOLING_NUMBERS[options.pooling],
            normalize=options.normalize,
            max_tokens=options.max_tokens,
        ),
        checkpoint=None
        if checkpoint is None
        else learner_pb2.CheckpointRef(campaign=checkpoint.campaign, round=checkpoint.round),
        alias=request.alias,
    )
