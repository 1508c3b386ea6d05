"""`sealpool pool reembed`: a pool into another one, with new vectors, as a job of the learner."""

from typing import Annotated

import typer

from sealpool.cli.options import LEARNER, AsJson, Learner, PoolName, learner_client
from sealpool.cli.output import answer_json, clean, count, note, plain, say
from sealpool.cli.pool_ingest import Pooling
from sealpool.cli.progress import file_progress
from sealpool.client import LearnerClient
from sealpool.errors import Cancelled, FailedPrecondition, Unavailable
from sealpool.v1 import learner_pb2

_Job = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, which starting it showed.")]

reembed_app = typer.Typer(help="Jobs that embed a pool anew.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to those of `sealpool pool`."""
    app.command()(reembed)
    app.add_typer(reembed_app, name="reembedding")


def reembed(
    name: PoolName,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="The pool to fill; made if it is not there.", show_default=False)
    ],
    *,
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Hugging Face encoder: a directory on the learner's machine, or a model name that its cache has.",
            show_default=False,
        ),
    ] = "",
    campaign: Annotated[
        str, typer.Option(help="Take the encoder that this campaign fine-tuned, with --round.", show_default=False)
    ] = "",
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="With --campaign: of which round.", show_default=False)
    ] = None,
    pooling: Annotated[Pooling, typer.Option(help="Mean of the tokens, or the first one.")] = Pooling.MEAN,
    normalize: Annotated[bool, typer.Option(help="Scale each vector to length 1.")] = True,
    max_tokens: Annotated[
        int, typer.Option(min=0, max=1 << 20, help="Cut longer texts; 0 is the encoder's own limit.")
    ] = 0,
    alias: Annotated[str, typer.Option(help="Given to TARGET when everything is in it.", show_default=False)] = "",
    wait: Annotated[bool, typer.Option(help="Show progress until it has ended; else return at once.")] = True,
    learner: Learner = LEARNER,
    as_json: AsJson = False,
) -> None:
    """Embed the texts of a pool anew into another pool, and give that an alias at the end.

    The learner does it as a job, which goes on after Ctrl-C here and after a restart there. Run again with the same
    options it shows the same job; one that failed or was cancelled goes on where it was.

    Examples: `sealpool pool reembed news news@2 --encoder BAAI/bge-small-en-v1.5 --alias news-live`,
    `sealpool pool reembed news news@3 --campaign topics --round 8 --alias news-live`
    """
    if bool(encoder) == bool(campaign) or bool(campaign) != (round_number is not None):
        raise typer.BadParameter("give --encoder, or --campaign with --round")
    request = learner_pb2.StartReembeddingRequest(
        source_pool=name,
        target_pool=target,
        alias=alias,
        encoder=learner_pb2.EmbedHeader(
            encoder=encoder,
            pooling=learner_pb2.POOLING_CLS if pooling is Pooling.CLS else learner_pb2.POOLING_MEAN,
            normalize=normalize,
            max_tokens=max_tokens,
        ),
        checkpoint=learner_pb2.CheckpointRef(campaign=campaign, round=round_number or 0) if campaign else None,
    )
    with learner_client(learner) as client:
        job = client.start_reembedding(request)
        if wait:
            job = _follow(client, job)
    _answer(job, as_json)


@reembed_app.command()
def watch(job: _Job, *, learner: Learner = LEARNER, as_json: AsJson = False) -> None:
    """Show the progress of a job until it has ended."""
    with learner_client(learner) as client:
        _answer(_follow(client, learner_pb2.ReembeddingJob(id=job)), as_json)


@reembed_app.command()
def cancel(job: _Job, *, learner: Learner = LEARNER, as_json: AsJson = False) -> None:
    """Stop a job after the texts at hand. What is in its target stays there."""
    with learner_client(learner) as client:
        answer = client.cancel_reembedding(job)
    if as_json:
        answer_json(plain(answer))
    else:
        say(_sentence(answer))


def _follow(client: LearnerClient, job: learner_pb2.ReembeddingJob) -> learner_pb2.ReembeddingJob:
    try:
        with file_progress(f"job {job.id}") as show:
            began_with: int | None = None
            for job in client.watch_reembedding(job.id):  # noqa: B020 - each is the job as it is by then
                began_with = job.done if began_with is None else began_with
                show(job.done / job.items if job.items else 0.0, job.done - began_with)
    except (KeyboardInterrupt, Unavailable) as interruption:
        back = " once the learner is back" if isinstance(interruption, Unavailable) else ""
        note(f"the job goes on{back}; see it with `sealpool pool reembedding watch {job.id}`")
        raise
    return job


def _answer(job: learner_pb2.ReembeddingJob, as_json: bool) -> None:
    if job.state == learner_pb2.JOB_STATE_FAILED:
        raise FailedPrecondition(f"job {job.id} failed: {clean(job.error)}")
    if job.state == learner_pb2.JOB_STATE_CANCELLED:
        raise Cancelled(f"job {job.id} was cancelled; the same command goes on with it")
    if as_json:
        answer_json(plain(job))
    else:
        say(_sentence(job))


def _sentence(job: learner_pb2.ReembeddingJob) -> str:
    words = {
        learner_pb2.JOB_STATE_RUNNING: "runs",
        learner_pb2.JOB_STATE_FINISHED: "is finished",
        learner_pb2.JOB_STATE_FAILED: "failed",
        learner_pb2.JOB_STATE_CANCELLED: "is cancelled",
    }
    alias = job.request.alias
    named = f"; {alias} stands for it" if alias and job.state == learner_pb2.JOB_STATE_FINISHED else ""
    return (
        f"job {job.id} {words.get(job.state, 'is unknown')}: {count(job.done)} of {count(job.items)} items of "
        f"{job.request.source_pool} are in {job.request.target_pool}{named}"
    )
