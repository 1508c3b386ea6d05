"""Campaigns that use much of what the services do, so that their metrics have something to tell."""

from threading import Thread

import numpy as np
import pytest

from sealpool.cli.demo_data import digits
from sealpool.cli.demo_run import POOL, campaign_spec, plan_demo, run_campaign, upload
from sealpool.client import ClientOptions, IndexClient, LearnerClient, SchedulerClient, stream_item
from sealpool.errors import FailedPrecondition, NotFound, Unauthenticated
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import common_pb2, index_pb2
from sealpool.v1 import scheduler_pb2 as pb
from tests.deploy.watched_services import JOBS, Watched
from tests.deploy.watched_stops import stop_in_the_middle_of_calls
from tests.support.language_model import Trouble

CLASSES = ["north", "east", "south", "west"]
REPORTS = "reports"
_CENTRES = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]], np.float32)


def run_all(watched: Watched) -> None:
    """Run a campaign of each kind of oracle, and a few calls that are refused."""
    refused_calls(watched)
    failed_calls(watched)
    make_reports(watched.index)
    run_digits(watched)
    run_people(watched)
    run_language_model(watched)
    # A rate needs two scrapes of a counter, and a counter is there from its first count on.
    refused_calls(watched)
    failed_calls(watched)
    for module in JOBS:
        watched.prometheus.wait_for(f"sealpool_{module}_refusals_total > 1")
    stop_in_the_middle_of_calls(watched)


def class_of(number: int) -> str:
    return CLASSES[(0, 0, 0, 0, 1, 1, 1, 2, 2, 3)[number % 10]]


def vector_of(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    rng = np.random.default_rng(number)
    vector = rng.normal(0, 0.5, 8).astype(np.float32)
    vector[:2] += _CENTRES[CLASSES.index(class_of(number))]
    return vector


def make_reports(index: IndexClient, count: int = 400) -> None:
    """Make a pool of four classes that overlap, one of them rare."""
    index.create_pool(index_pb2.PoolSpec(name=REPORTS, dimension=8))
    items = Items(
        ids=[ItemId(f"report-{number}") for number in range(count)],
        vectors=np.stack([vector_of(number) for number in range(count)]),
        payloads=[Payload(text=f"report of {class_of(number)} number {number}") for number in range(count)],
    )
    index.upsert(REPORTS, items)


def run_digits(watched: Watched) -> None:
    """Run the demo's own campaign, with held-out items and a stop set, to its end."""
    data = digits(seed=1)
    upload(watched.index, data, on_progress=lambda _: None)
    plan = plan_demo(data, rounds=6, batch=20, k=10, exploration=0.1, strategy="entropy", seed=1)
    spec = campaign_spec("digits", data, plan, active=True)
    spec.stopping.MergeFrom(pb.StoppingSpec(stop_set=100, kappa=0.99, overall_uncertainty=0.05))
    run_campaign(watched.scheduler, spec, on_round=lambda _, __: None)
    watched.index.get_reachability(POOL, "digits")
    for _ in range(2):
        watched.index.search(POOL, ids=data.pool.ids[:5], k=3)
        watched.prometheus.wait_for('sealpool_index_server_request_seconds_count{method="Search"}')


def run_people(watched: Watched) -> None:
    """Have two people label each item, one of whom errs, and a third who takes tasks and leaves."""
    spec = report_campaign("people", seed_size=20, batch_size=10, budget=200)
    spec.annotation.annotations = 2
    spec.rule.after_labels = 10_000
    spec.evaluation.MergeFrom(pb.EvaluationSpec(items=15, test_pool=40, test_points=5))
    spec.stream.MergeFrom(pb.StreamSpec(uncertainty=0.2, budget_share=0.3))
    watched.scheduler.create_campaign(spec)
    watched.scheduler.run_round("people")
    watched.scheduler.lease_tasks("people", annotator="leaver", max_tasks=5, lease_s=1)
    watched.prometheus.wait_for('sealpool_scheduler_tasks{campaign="people",state="leased"} > 0')
    watched.prometheus.wait_for('sealpool_scheduler_tasks{campaign="people",state="leased"} == 0')
    for _ in range(3):
        label_everything(watched.scheduler, "people")
        watched.scheduler.run_round("people")
    late = [
        stream_item(f"late-{n}", text=f"report of {class_of(n)} number {n}", vector=vector_of(n))
        for n in range(1000, 1040)
    ]
    watched.stream.consider_batch("people", late)
    label_everything(watched.scheduler, "people")
    watched.prometheus.wait_for('sealpool_scheduler_stream_seen_items{campaign="people"}')


def run_language_model(watched: Watched) -> None:
    """Have a language model label, people audit it, and one round last until it was seen."""
    spec = report_campaign("model", seed_size=15, batch_size=10, budget=60)
    spec.oracle.MergeFrom(
        pb.OracleSpec(name="llm", llm=pb.LlmSpec(model="m", audit_share=0.5, max_cost=50, max_tokens=10**6))
    )
    watched.scheduler.create_campaign(spec)
    watched.model.next(Trouble(status=500))
    watched.scheduler.run_round("model")
    watched.model.gate.clear()
    round_ = Thread(target=lambda: watched.scheduler.run_round("model"))
    round_.start()
    try:
        watched.prometheus.wait_for("sealpool_scheduler_llm_in_flight_requests > 0")
    finally:
        watched.model.gate.set()
        round_.join()
    label_everything(watched.scheduler, "model")
    watched.prometheus.wait_for('sealpool_scheduler_llm_audited_items{campaign="model"} > 0')


def report_campaign(name: str, *, seed_size: int, batch_size: int, budget: int) -> pb.CampaignSpec:
    return pb.CampaignSpec(
        name=name,
        pool=REPORTS,
        task=common_pb2.TASK_KIND_MULTICLASS,
        classes=CLASSES,
        strategy=common_pb2.StrategySpec(name="margin"),
        policy=common_pb2.PolicySpec(name="seals", k=5),
        seed_size=seed_size,
        batch_size=batch_size,
        budget=budget,
        exploration=0.1,
        seed=3,
    )


def label_everything(scheduler: SchedulerClient, campaign: str) -> None:
    """Let people answer every task there is; bob takes one in eight for the next class."""
    for annotator, errs_at in (("ann", None), ("bob", 3), ("cleo", None), ("dan", None)):
        tasks = scheduler.lease_tasks(campaign, annotator=annotator, max_tasks=500, lease_s=60).tasks
        given = {task.item_id: [_said(task.item_id, errs_at)] for task in tasks}
        if given:
            scheduler.submit_labels(campaign, given, annotator=annotator)


def _said(item_id: str, errs_at: int | None) -> str:
    number = int(item_id.rpartition("-")[2])
    return class_of(number + 4) if errs_at is not None and number % 8 == errs_at else class_of(number)


def refused_calls(watched: Watched) -> None:
    """Call each service without a token."""
    nobody = ClientOptions(token="", retry_for_s=0)
    with IndexClient(watched.index.target, options=nobody) as index, pytest.raises(Unauthenticated):
        index.list_pools()
    with LearnerClient(watched.learner.target, options=nobody) as learner, pytest.raises(Unauthenticated):
        list(learner.predict("digits", round=1, ids=["x"]))
    with SchedulerClient(watched.scheduler.target, options=nobody) as scheduler, pytest.raises(Unauthenticated):
        scheduler.list_campaigns()


def failed_calls(watched: Watched) -> None:
    """Ask each service for what it does not have."""
    with pytest.raises(NotFound):
        watched.index.get_pool("nowhere")
    with pytest.raises((NotFound, FailedPrecondition)):
        list(watched.learner.predict("nobody", round=1, ids=["x"]))
    with pytest.raises(NotFound):
        watched.scheduler.get_campaign("nobody")
