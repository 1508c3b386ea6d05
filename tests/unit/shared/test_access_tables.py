"""What each method asks of a token."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from sealpool.errors import PermissionDenied
from sealpool.runtime.access import INDEX_ACCESS, LEARNER_ACCESS, Access, check_complete, scheduler_access
from sealpool.runtime.tokens import Role, make_token
from sealpool.v1 import index_pb2, label_studio_pb2, learner_pb2, scheduler_pb2, stream_pb2

NOW = datetime(2024, 1, 1, tzinfo=UTC)
INDEX = index_pb2.DESCRIPTOR.services_by_name["IndexService"]
LEARNER = learner_pb2.DESCRIPTOR.services_by_name["LearnerService"]
SCHEDULER = [
    scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"],
    stream_pb2.DESCRIPTOR.services_by_name["StreamService"],
    label_studio_pb2.DESCRIPTOR.services_by_name["LabelStudioService"],
]


@pytest.mark.parametrize(
    ("services", "access"),
    [([INDEX], INDEX_ACCESS), ([LEARNER], LEARNER_ACCESS), (SCHEDULER, scheduler_access({}.get))],
)
def test_every_method_says_what_it_asks_for_in_fields_that_its_request_has(
    services: Sequence[ServiceDescriptor],
    access: Mapping[str, Access],
) -> None:
    check_complete(access, services)
    for method in (method for service in services for method in service.methods):
        pools_of = access[method.name].pools_of
        if pools_of is not None:
            pools_of(GetMessageClass(method.input_type)())


def test_a_campaign_is_its_pools(tmp_path: Path) -> None:
    access = scheduler_access({"c": "reports-1", "d": "private"}.get)  # type: ignore[arg-type]
    _, known = make_token("n", role=Role.READ, pools=["reports*"], created=NOW)
    access["GetCampaign"].check(known, scheduler_pb2.GetCampaignRequest(name="c"))
    with pytest.raises(PermissionDenied, match="name: 'private' is none of the pools of token 'n'"):
        access["GetCampaign"].check(known, scheduler_pb2.GetCampaignRequest(name="d"))
    spec = scheduler_pb2.CampaignSpec(pool="reports-1", evaluation_pool="private")
    with pytest.raises(PermissionDenied, match="evaluation_pool"):
        access["CreateCampaign"].check(known, scheduler_pb2.CreateCampaignRequest(spec=spec))
    with pytest.raises(PermissionDenied, match="some pools only"):
        scheduler_access()["GetCampaign"].check(known, scheduler_pb2.GetCampaignRequest(name="c"))


def test_a_call_that_names_no_pool_is_refused_to_a_token_for_some_pools_alone() -> None:
    restore = INDEX_ACCESS["RestoreSnapshot"]
    _, narrow = make_token("n", role=Role.ADMIN, pools=["reports*"], created=NOW)
    _, wide = make_token("w", role=Role.ADMIN, pools=["*"], created=NOW)
    restore.check(wide, index_pb2.RestoreSnapshotRequest())
    with pytest.raises(PermissionDenied, match="for some pools only"):
        restore.check(narrow, index_pb2.RestoreSnapshotRequest())


def test_a_pool_is_embedded_anew_by_who_may_use_its_source_its_target_and_the_alias() -> None:
    access = LEARNER_ACCESS["StartReembedding"]
    _, narrow = make_token("n", role=Role.ADMIN, pools=["news*"], created=NOW)
    access.check(narrow, learner_pb2.StartReembeddingRequest(source_pool="news@1", target_pool="news@2"))
    access.check(narrow, learner_pb2.StartReembeddingRequest(source_pool="news@1", target_pool="news@2", alias="news"))
    for wrong in ("source_pool", "target_pool", "alias"):
        pools = {"source_pool": "news@1", "target_pool": "news@2", "alias": "news", wrong: "private"}
        with pytest.raises(PermissionDenied, match=f"{wrong}: 'private' is none of the pools of token 'n'"):
            access.check(narrow, learner_pb2.StartReembeddingRequest(**pools))
    for method in ("WatchReembedding", "CancelReembedding"):
        with pytest.raises(PermissionDenied, match="for some pools only"):
            LEARNER_ACCESS[method].check(narrow, learner_pb2.WatchReembeddingRequest(id="x"))
