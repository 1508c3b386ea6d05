"""Services at the gRPC port that answer what a test tells them to."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest

from sealpool.v1 import (
    index_pb2,
    index_pb2_grpc,
    learner_pb2,
    learner_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
)


class FakeIndex(index_pb2_grpc.IndexServiceServicer):
    """Pools in memory, without neighbours."""

    def __init__(self):
        self.pools = {}
        self.items = {}
        self.upserts = []
        self.away = 0
        self.aliases = {}
        self.requests = []
        self.reasons = []
        self.reach = index_pb2.GetReachabilityResponse()

    def CreatePool(self, request, context):
        name = request.spec.name
        if name in self.pools:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"pool '{name}' exists already")
        self.pools[name] = index_pb2.Pool(
            spec=request.spec, version=1, engine="flat", device="cpu", state=index_pb2.POOL_STATE_READY
        )
        self.items[name] = {}
        return index_pb2.CreatePoolResponse(pool=self.pools[name])

    def GetPool(self, request, context):
        if request.name not in self.pools:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no such pool: '{request.name}'")
        pool = self.pools[request.name]
        pool.size = len(self.items[request.name])
        return index_pb2.GetPoolResponse(pool=pool)

    def ListPools(self, request, context):
        return index_pb2.ListPoolsResponse(pools=self.pools.values())

    def DeletePool(self, request, context):
        del self.pools[request.name]
        return index_pb2.DeletePoolResponse(pool_version=2, size=len(self.items.pop(request.name)))

    def GetItems(self, request, context):
        answer = index_pb2.GetItemsResponse(pool_version=5)
        answer.items.ids.extend(item_id for item_id in request.ids if item_id in self.items[request.pool])
        yield answer

    def Upsert(self, request_iterator, context):
        if self.away:
            self.away -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        requests = list(request_iterator)
        pool = requests[0].pool
        before = len(self.items[pool])
        batches = [request.items for request in requests if request.HasField("items")]
        rows = {
            item_id: (
                batch.payloads.texts[row] if batch.payloads.texts else "",
                batch.payloads.metadata_json[row] if batch.payloads.metadata_json else "",
            )
            for batch in batches
            for row, item_id in enumerate(batch.ids)
        }
        self.upserts.append((pool, [item_id for batch in batches for item_id in batch.ids], batches))
        self.items[pool].update(rows)
        inserted = len(self.items[pool]) - before
        return index_pb2.UpsertResponse(pool_version=5, inserted=inserted, replaced=len(rows) - inserted)

    def ScanItems(self, request, context):
        for item_id, (text, metadata) in self.items[request.pool].items():
            answer = index_pb2.ScanItemsResponse(pool_version=5)
            answer.items.ids.append(item_id)
            answer.items.payloads.texts.append(text)
            answer.items.payloads.metadata_json.append(metadata)
            yield answer

    def CreateSnapshot(self, request, context):
        self.requests.append(request)
        return index_pb2.CreateSnapshotResponse(pool_version=5, size=1200, bytes=3 << 20)

    def RestoreSnapshot(self, request, context):
        self.requests.append(request)
        pool = index_pb2.Pool(spec=index_pb2.PoolSpec(name=request.name or "old"), size=1200)
        return index_pb2.RestoreSnapshotResponse(pool=pool)

    def SetAlias(self, request, context):
        before = self.aliases.get(request.alias, "")
        self.aliases[request.alias] = request.pool
        return index_pb2.SetAliasResponse(previous_pool=before)

    def DeleteAlias(self, request, context):
        if request.alias not in self.aliases:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no such alias: '{request.alias}'")
        del self.aliases[request.alias]
        return index_pb2.DeleteAliasResponse()

    def ExplainCandidates(self, request, context):
        self.requests.append(request)
        return index_pb2.ExplainCandidatesResponse(pool_version=5, reasons=self.reasons)

    def GetReachability(self, request, context):
        self.requests.append(request)
        return self.reach


class FakeLearner(learner_pb2_grpc.LearnerServiceServicer):
    """Embeds a text as (its length, 1)."""

    def __init__(self):
        self.encoders = []
        self.texts = []

    def Embed(self, request_iterator, context):
        import numpy as np

        from sealpool.matrix import to_matrix

        for request in request_iterator:
            if request.HasField("header"):
                self.encoders.append(request.header.encoder)
            self.texts.extend(request.texts)
            if request.texts:
                vectors = np.array([[len(text), 1] for text in request.texts], np.float32)
                yield learner_pb2.EmbedResponse(vectors=to_matrix(vectors))

    def StartReembedding(self, request, context):
        job = learner_pb2.ReembeddingJob(id="j1", request=request, state=learner_pb2.JOB_STATE_RUNNING)
        return learner_pb2.StartReembeddingResponse(job=job)

    def WatchReembedding(self, request, context):
        job = learner_pb2.ReembeddingJob(id=request.id, state=learner_pb2.JOB_STATE_RUNNING, items=9, done=3)
        yield learner_pb2.WatchReembeddingResponse(job=job)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the learner stops")


class FakeScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Keeps the specs, and runs rounds that finish at once."""

    def __init__(self):
        self.campaigns = {}
        self.submitted = []
        self.refuses = set()
        self.released = []
        self.leased = []
        self.tasks = [scheduler_pb2.Task(id="t1", item_id="a", round=2, text="[hello]", score=0.5)]
        self.labels = []
        self.strategy = ""  # what the one asked for is called here

    def _get(self, name, context):
        if name not in self.campaigns:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no such campaign: '{name}'")
        return self.campaigns[name]

    def CreateCampaign(self, request, context):
        if request.spec.name in self.campaigns:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"campaign '{request.spec.name}' exists already")
        campaign = scheduler_pb2.Campaign(spec=request.spec, state=scheduler_pb2.CAMPAIGN_STATE_ACTIVE)
        if request.validate_only:
            return scheduler_pb2.CreateCampaignResponse(campaign=campaign)
        campaign.spec.strategy.name = self.strategy or request.spec.strategy.name
        self.campaigns[request.spec.name] = campaign
        return scheduler_pb2.CreateCampaignResponse(campaign=campaign)

    def UpdateCampaign(self, request, context):
        campaign = self._get(request.spec.name, context)
        if request.spec.pool != campaign.spec.pool:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "spec.pool: cannot change")
        told = {field.name for spec in (request.spec, campaign.spec) for field, _ in spec.ListFields()}
        changed = sorted(name for name in told if getattr(request.spec, name) != getattr(campaign.spec, name))
        if not request.validate_only:
            campaign.spec.CopyFrom(request.spec)
        return scheduler_pb2.UpdateCampaignResponse(campaign=campaign, changed=changed)

    def GetCampaign(self, request, context):
        return scheduler_pb2.GetCampaignResponse(campaign=self._get(request.name, context))

    def ListCampaigns(self, request, context):
        return scheduler_pb2.ListCampaignsResponse(campaigns=self.campaigns.values())

    def PauseCampaign(self, request, context):
        campaign = self._get(request.name, context)
        campaign.state = scheduler_pb2.CAMPAIGN_STATE_PAUSED
        return scheduler_pb2.PauseCampaignResponse(campaign=campaign)

    def RunRound(self, request, context):
        campaign = self._get(request.campaign, context)
        if campaign.state == scheduler_pb2.CAMPAIGN_STATE_PAUSED:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"campaign '{request.campaign}' is paused")
        number = campaign.rounds
        campaign.rounds += 1
        campaign.labels = min(campaign.labels + campaign.spec.batch_size, campaign.spec.budget)
        if campaign.spec.oracle.name == "external":
            campaign.open_tasks = campaign.spec.batch_size
        elif campaign.labels == campaign.spec.budget:
            campaign.state = scheduler_pb2.CAMPAIGN_STATE_COMPLETED
        one = scheduler_pb2.Round(number=number, state=scheduler_pb2.ROUND_STATE_FINISHED, labels=campaign.labels)
        one.quality.accuracy = 0.75
        one.quality.mean_average_precision = float("nan")
        return scheduler_pb2.RunRoundResponse(round=one, campaign_state=campaign.state)

    def ListRounds(self, request, context):
        return scheduler_pb2.ListRoundsResponse()

    def LeaseTasks(self, request, context):
        self.leased.append(request)
        return scheduler_pb2.LeaseTasksResponse(tasks=self.tasks, open_tasks=3)

    def ListAnnotations(self, request, context):
        said = [
            scheduler_pb2.Annotation(item_id="a", annotator="ann", outcome=1, classes=["yes"], confidence=0.5),
            scheduler_pb2.Annotation(item_id="b", annotator="bob", outcome=3, comment="[torn]"),
        ]
        wanted = [one for one in said if request.item_id in ("", one.item_id)]
        yield scheduler_pb2.ListAnnotationsResponse(
            annotations=[one for one in wanted if request.annotator in ("", one.annotator)]
        )

    def ReviewLabels(self, request, context):
        likely = [scheduler_pb2.ClassProbability(name="no", probability=0.75)]
        suspect = scheduler_pb2.Suspect(item_id="a", classes=["yes"], predictions=likely, quality=0.25)
        return scheduler_pb2.ReviewLabelsResponse(suspects=[suspect], tasks=0 if request.show_only else 1)

    def GetOracleReport(self, request, context):
        ann = scheduler_pb2.AnnotatorReport(annotator="ann", labels=9, skipped=1, compared=4, agreed=3)
        llm = scheduler_pb2.LlmReport(
            requests=5, tokens_in=1000, cost=1.5, labelled=4, audited=4, errors=1, error_rate=0.25, error_high=0.7
        )
        return scheduler_pb2.GetOracleReportResponse(annotators=[ann], several=4, agreement=0.5, llm=llm)

    def ReleaseTasks(self, request, context):
        self.released.append(request.annotator)
        return scheduler_pb2.ReleaseTasksResponse(released=2)

    def SubmitLabels(self, request, context):
        gone = self.refuses & {label.item_id for label in request.labels}
        if gone:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no such item: {sorted(gone)}")
        self.submitted.append(request)
        return scheduler_pb2.SubmitLabelsResponse(accepted=len(request.labels), labels=len(request.labels))

    def ListLabels(self, request, context):
        yield scheduler_pb2.ListLabelsResponse(labels=self.labels)

    def WatchCampaign(self, request, context):
        event = scheduler_pb2.WatchCampaignResponse(sequence=7)
        event.labels_arrived.accepted = 3
        yield event


@dataclass
class Fakes:
    """The three fakes at one address."""

    target: str
    index: FakeIndex = field(default_factory=FakeIndex)
    learner: FakeLearner = field(default_factory=FakeLearner)
    scheduler: FakeScheduler = field(default_factory=FakeScheduler)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fakes]:
    made = Fakes("")
    server = grpc.server(ThreadPoolExecutor(4))
    index_pb2_grpc.add_IndexServiceServicer_to_server(made.index, server)
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(made.learner, server)
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(made.scheduler, server)
    made.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    for name in ("INDEX", "LEARNER", "SCHEDULER"):
        monkeypatch.setenv(f"SEALPOOL_{name}", made.target)
    yield made
    server.stop(0).wait()


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line in this process."""
    from sealpool.cli.app import run

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def process() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a command line as a process of its own."""

    def call(*arguments: str, **more: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "sealpool.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)

    return call
