"""Re-embedding jobs: a whole pool into another, whatever happens meanwhile."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast, ViTConfig, ViTImageProcessor, ViTModel

from learner.encoders import EmbedOptions, Encoders, Pooling
from learner.reembedding.jobs import ReembeddingJobs
from learner.reembedding.messages import read_start, to_message
from learner.reembedding.store import CheckpointName, Job, JobState, JobStore, ReembeddingRequest
from sealpool.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from sealpool.types import Items, Payload
from sealpool.v1 import index_pb2, learner_pb2
from tests.support.pools_in_memory import WAIT_S, Gate, Pools

LOG = structlog.wrap_logger(structlog.ReturnLogger())


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=12, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoders() -> Encoders:
    return Encoders(torch.device("cpu"), keep=2, batch_tokens=64, allow_download=False, log=LOG)


@pytest.fixture
def pools() -> Pools:
    return Pools({f"i{n:02}": "abcdefg"[n % 7] + " a" * (n % 5) for n in range(20)})


@pytest.fixture
def make(tmp_path: Path, encoders: Encoders) -> Iterator[Callable[..., ReembeddingJobs]]:
    made = []

    def new(pools: Pools, *, max_waiting: int = 2) -> ReembeddingJobs:
        jobs = ReembeddingJobs(tmp_path / "jobs", pools, encoders, batch_items=4, max_waiting=max_waiting, log=LOG)
        made.append(jobs)
        return jobs

    yield new
    for jobs in made:
        jobs.close()


def request(bert: str, **changes) -> ReembeddingRequest:
    values = {"source_pool": "live", "target_pool": "new", "options": EmbedOptions(encoder=bert), "alias": "live"}
    return ReembeddingRequest(**(values | changes))


def finish(jobs: ReembeddingJobs, asked: ReembeddingRequest) -> Job:
    """Start a job and return the state that it ends in."""
    return last(jobs, jobs.start(asked))


def last(jobs: ReembeddingJobs, job: Job) -> Job:
    """The state that a job ends in."""
    *_, end = jobs.watch(job.id)
    return end


def test_every_item_comes_into_a_new_pool_and_the_alias_with_it(make, pools: Pools, encoders, bert: str) -> None:
    end = finish(make(pools), request(bert))
    assert (end.state, end.items, end.done, end.error) == (JobState.FINISHED, 20, 20, "")
    assert pools.aliases == {"live": "new"}
    spec = pools.specs["new"]
    assert (spec.dimension, spec.metric, spec.engine) == (8, index_pb2.METRIC_L2, "flat")
    payloads = {i: payload for i, (payload, _) in pools.items["new"].items()}
    assert payloads == {i: payload for i, (payload, _) in pools.items["old"].items()}
    expected = encoders.get(bert).embed([payload.text for payload in payloads.values()], EmbedOptions(encoder=bert))
    np.testing.assert_allclose(np.stack([v for _, v in pools.items["new"].values()]), expected, atol=1e-5)


def test_what_the_target_has_with_the_same_text_is_not_embedded_again(make, pools: Pools, bert: str) -> None:
    pools.create_pool(index_pb2.PoolSpec(name="new", dimension=8))
    same, _ = pools.items["old"]["i03"]
    pools.items["new"] = {"i03": (same, np.ones(8)), "i04": (Payload(text="stale"), np.ones(8)), "x": (same, 0)}
    end = finish(make(pools), request(bert))
    assert (end.state, end.done) == (JobState.FINISHED, 20)
    assert sorted(pools.upserted) == sorted(set(pools.items["old"]) - {"i03"})
    assert "x" in pools.items["new"]  # the pool was there before the job: what else is in it is not the job's


def test_items_that_come_go_and_change_meanwhile_are_as_in_the_source_at_the_end(make, pools: Pools, bert) -> None:
    changes = iter(
        [
            lambda: pools.items["old"].update(late=(Payload(text="g g"), 0)),
            lambda: pools.items["old"].pop("i00"),  # embedded already
            lambda: pools.items["old"].pop("i19"),  # not yet
            lambda: pools.items["old"].update(i01=(Payload(text="f f f"), 0)),
        ]
    )
    pools.meanwhile = lambda: next(changes, lambda: None)()
    end = finish(make(pools), request(bert))
    assert end.state is JobState.FINISHED
    texts = {i: payload.text for i, (payload, _) in pools.items["new"].items()}
    assert texts == {i: payload.text for i, (payload, _) in pools.items["old"].items()}
    assert {"late"} <= texts.keys()
    assert texts["i01"] == "f f f"


def test_an_item_deleted_or_changed_while_its_batch_is_embedded_is_as_in_the_source(
    make, pools: Pools, encoders: Encoders, bert: str
) -> None:
    get_items = pools.get_items

    def meddling(pool: str, ids, **more) -> Items:
        if pool == "old":
            pools.items["old"].pop("i02", None)
            pools.items["old"]["i03"] = (Payload(text="g g g"), 0)
        return get_items(pool, ids, **more)

    pools.get_items = meddling
    assert finish(make(pools), request(bert)).state is JobState.FINISHED
    assert "i02" not in pools.upserted
    assert len(pools.items["new"]) == 19
    payload, vector = pools.items["new"]["i03"]
    assert payload.text == "g g g"
    expected = encoders.get(bert).embed(["g g g"], EmbedOptions(encoder=bert))[0]
    np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_items_without_text_fail_the_job_before_anything_is_embedded(make, pools: Pools, bert: str) -> None:
    pools.items["old"]["i05"] = (Payload(text="  "), 0)
    pools.items["old"]["i07"] = (Payload(), 0)
    jobs = make(pools)
    end = last(jobs, jobs.start(request(bert)))
    assert end.state is JobState.FAILED
    assert end.error == "2 items of the source have no text, 'i05' for one: there is nothing to embed"
    assert pools.aliases == {"live": "old"}
    assert pools.upserted == []
    for item_id in ("i05", "i07"):
        pools.items["old"][item_id] = (Payload(text="a"), 0)
    assert last(jobs, jobs.start(request(bert))).state is JobState.FINISHED
    assert pools.aliases == {"live": "new"}


def test_a_job_waits_for_an_index_server_that_is_away(make, pools: Pools, bert: str) -> None:
    away = threading.Event()

    def leave() -> None:
        if not away.is_set():
            away.set()
            pools.errors = [Unavailable("away"), Unavailable("away", retry_after_s=0.01)]

    pools.meanwhile = leave
    end = finish(make(pools), request(bert))
    assert end.state is JobState.FINISHED
    assert len(pools.upserted) == 20


def test_a_limit_that_waiting_does_not_move_fails_the_job(make, pools: Pools, bert: str) -> None:
    pools.meanwhile = lambda: pools.errors.append(ResourceExhausted("disk", limit=1, setting="data_dir"))
    end = finish(make(pools), request(bert))
    assert (end.state, "data_dir" in end.error) == (JobState.FAILED, True)


def test_a_cancelled_job_stops_after_the_batch_at_hand_and_can_go_on(make, pools: Pools, bert: str) -> None:
    gate, jobs = Gate(pools), make(pools)
    job = jobs.start(request(bert))
    assert gate.reached.wait(WAIT_S)
    assert jobs.cancel(job.id).state is JobState.CANCELLED
    gate.open.set()
    assert last(jobs, job).state is JobState.CANCELLED
    assert last(jobs, jobs.start(request(bert))).state is JobState.FINISHED
    assert len(pools.upserted) == 20
    assert jobs.cancel(job.id).state is JobState.FINISHED  # ended: as it is


def test_a_job_goes_on_where_it_was_after_the_learner_stopped(make, pools: Pools, bert: str) -> None:
    gate, jobs = Gate(pools), make(pools)
    job = jobs.start(request(bert))
    assert gate.reached.wait(WAIT_S)
    closing = threading.Thread(target=jobs.close)
    closing.start()
    gate.open.set()
    closing.join(WAIT_S)
    done = len(pools.upserted)
    assert done < 20
    for refused in (
        lambda: next(jobs.watch(job.id)) and list(jobs.watch(job.id)),
        lambda: jobs.start(request(bert, target_pool="late")),
    ):
        with pytest.raises(Unavailable):
            refused()
    later = make(pools)
    later.resume()
    assert last(later, job).state is JobState.FINISHED
    assert len(pools.upserted) == 20
    pools.items["old"]["another"] = (Payload(text="a"), 0)
    third = make(pools)
    third.resume()
    assert third.start(request(bert)).state is JobState.FINISHED  # known, and not run again
    assert "another" not in pools.items["new"]


def test_a_cancelled_job_stays_cancelled_after_a_restart(make, pools: Pools, bert: str) -> None:
    gate, jobs = Gate(pools), make(pools)
    job = jobs.start(request(bert))
    assert gate.reached.wait(WAIT_S)
    jobs.cancel(job.id)
    gate.open.set()
    jobs.close()
    later = make(pools)
    later.resume()
    assert last(later, job).state is JobState.CANCELLED


def test_jobs_wait_in_a_queue_of_bounded_length(make, pools: Pools, bert: str) -> None:
    gate, jobs = Gate(pools), make(pools, max_waiting=1)
    first = jobs.start(request(bert, target_pool="one"))
    assert gate.reached.wait(WAIT_S)
    second = jobs.start(request(bert, target_pool="two", source_pool="old"))
    assert jobs.start(request(bert, target_pool="one")).id == first.id
    with pytest.raises(ResourceExhausted, match="max_waiting_reembeddings"):
        jobs.start(request(bert, target_pool="three"))
    gate.open.set()
    assert [last(jobs, job).state for job in (first, second)] == [JobState.FINISHED] * 2
    assert len(pools.items["two"]) == 20


def test_a_watcher_sees_a_job_get_on_and_may_leave(make, pools: Pools, bert: str) -> None:
    gate, jobs = Gate(pools), make(pools)
    job = jobs.start(request(bert))
    assert gate.reached.wait(WAIT_S)
    states = jobs.watch(job.id)
    assert next(states).state is JobState.RUNNING
    assert list(jobs.watch(job.id, left=lambda: True))[:1] == [next(jobs.watch(job.id))]
    gate.open.set()
    done = [state.done for state in states]
    assert done == sorted(done)
    assert done[-1] == 20
    with pytest.raises(NotFound):
        next(jobs.watch("unknown"))
    with pytest.raises(NotFound):
        jobs.cancel("unknown")


@pytest.mark.parametrize(
    ("changes", "raised"),
    [
        ({"source_pool": "unknown"}, NotFound),
        ({"target_pool": "live"}, InvalidArgument),
        ({"target_pool": "old"}, InvalidArgument),
        ({"target_pool": "other-name"}, InvalidArgument),
        ({"target_pool": "a/b"}, InvalidArgument),
        ({"alias": "a/b"}, InvalidArgument),
        ({"alias": "new"}, InvalidArgument),
        ({"options": EmbedOptions(encoder="")}, InvalidArgument),
        ({"checkpoint": CheckpointName(campaign="news", round=1)}, InvalidArgument),
        ({"options": EmbedOptions(encoder="/nowhere")}, FailedPrecondition),
        ({"target_pool": "narrow"}, FailedPrecondition),
    ],
)
def test_what_cannot_work_is_refused_at_once_and_leaves_no_job(make, pools, bert, tmp_path, changes, raised) -> None:
    pools.create_pool(index_pb2.PoolSpec(name="narrow", dimension=7))
    pools.create_pool(index_pb2.PoolSpec(name="other", dimension=8))
    pools.aliases["other-name"] = "other"
    with pytest.raises(raised):
        make(pools).start(request(bert, **changes))
    assert not (tmp_path / "jobs").exists()


def test_an_encoder_of_images_is_refused(make, pools: Pools, tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    with pytest.raises(InvalidArgument, match="reads images"):
        make(pools).start(request(str(tmp_path / "vit")))


def test_requests_and_jobs_survive_the_disk_and_the_wire(tmp_path: Path) -> None:
    options = EmbedOptions(encoder="", pooling=Pooling.CLS, normalize=False, max_tokens=12)
    asked = request("", options=options, checkpoint=CheckpointName(campaign="news", round=3))
    job = Job(request=asked, source="old", owns_target=True, started_s=1.5, state=JobState.FAILED, error="why", done=3)
    store = JobStore(tmp_path / "jobs", keep=5, log=LOG)
    assert store.read_all() == []
    with store.changing():
        store.write(job)
    assert store.read_all() == [job]
    assert store.read(job.id) == job
    message = to_message(job)
    assert (message.state, message.error, message.done) == (learner_pb2.JOB_STATE_FAILED, "why", 3)
    assert read_start(message.request) == asked
    assert read_start(message.request).id == asked.id != request("x").id


def test_unreadable_records_are_left_alone_and_old_ones_forgotten(tmp_path: Path) -> None:
    store = JobStore(tmp_path, keep=2, log=LOG)
    ended = [
        Job(request=request(str(n)), source="old", owns_target=True, started_s=n, state=JobState.FINISHED)
        for n in range(4)
    ]
    for job in ended:
        store.write(job)
    running = Job(request=request("r"), source="old", owns_target=True, started_s=-1)
    store.write(running)
    (tmp_path / "broken.json").write_text('{"format": 1}')
    store.forget_old()
    assert store.read_all() == [running, *ended[2:]]
    assert len(list(tmp_path.glob("*.json"))) == 4
