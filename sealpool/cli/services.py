"""`sealpool up`, and each service by itself."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sealpool.cli.options import AsJson
from sealpool.cli.output import PROGRESS, answer_json, facts, note, say
from sealpool.cli.processes import EXTRAS, ServicePlan, Services, check_ports, hold_folder, plan_services
from sealpool.errors import FailedPrecondition

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the root."""
    app.command("up")(up)
    for module, what in (
        ("index_server", "Run the index server: pools, nearest neighbours, candidate pools."),
        ("learner", "Run the learner: training, scoring, prediction, embedding."),
        ("scheduler", "Run the scheduler: campaigns, rounds, tasks, labels."),
    ):
        name = module.replace("_", "-")
        text = f"{what}\n\nEvery flag is the service's own: `sealpool {name} --help` shows them."
        app.command(name, context_settings=_PASS_ON, add_help_option=False, help=text)(_becomes(module))


def up(
    *,
    data_dir: Annotated[
        Path,
        typer.Option(help="Everything the services keep, a folder each, and their logs. Put it on a disk that lasts."),
    ] = Path(".sealpool"),
    index_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the index server; 0 takes a free one.")
    ] = 7301,
    learner_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the learner; 0 takes a free one.")
    ] = 7302,
    scheduler_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the scheduler; 0 takes a free one.")
    ] = 7303,
    metrics: Annotated[
        bool, typer.Option(help="Serve Prometheus metrics, on a port ten above each service's own.")
    ] = True,
    http: Annotated[
        bool, typer.Option(help="Answer HTTP and JSON as well, on a port twenty above the scheduler's own.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Run all three services on this machine's loopback until Ctrl-C.

    If one of them ends by itself, the other two are stopped as well and the command fails. What has no option here is
    set by the environment, as in SEALPOOL_LEARNER_DEVICE=cpu: docs/settings.md has all of it.

    Example: `sealpool up --data-dir /var/lib/sealpool`
    """
    ports = {"index_server": index_port, "learner": learner_port, "scheduler": scheduler_port}
    plans = plan_services(data_dir, ports=ports, metrics=metrics, http=http)
    taken = f"another sealpool up runs on {data_dir}: stop it first, or give --data-dir and other ports"
    with hold_folder(data_dir, taken), _ready_to_run(plans) as services:
        try:
            with PROGRESS.status("starting"):
                services.wait_until_serving()
            _tell(plans, as_json=as_json)
            services.wait_for_death()
        except KeyboardInterrupt:
            note("stopping …")
            raise


def _tell(plans: Sequence[ServicePlan], *, as_json: bool) -> None:
    http = next((plan.http_address for plan in plans if plan.http_address is not None), None)
    if as_json:
        answer_json({plan.module: plan.address for plan in plans} | ({"http": http} if http else {}))
        return
    addresses = {plan.module: f"{plan.address}  (log: {plan.log_file})" for plan in plans}
    say(facts("sealpool is up; Ctrl-C stops it", addresses | ({"http": f"{http}/docs"} if http else {})))


def _ready_to_run(plans: Sequence[ServicePlan]) -> Services:
    check_ports(plans)
    return Services(plans)


def _becomes(module: str) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        if find_spec(module) is None:
            raise FailedPrecondition(f'{module} is not installed: pip install "sealpool[{EXTRAS[module]}]"')
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", module, *context.args])  # noqa: S606 - no shell

    return command
