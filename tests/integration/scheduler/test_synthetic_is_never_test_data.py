"""What is measured on a draw never has an item in it that was made."""

import numpy as np

from scheduler.domain.origin import is_made
from scheduler.storage import campaigns, synthetic
from sealpool.types import ItemId, Items, Payload
from sealpool.v1 import scheduler_pb2 as pb
from sealpool.v1 import stream_pb2
from tests.unit.scheduler.fakes import vector_of
from tests.unit.scheduler.world import DATASET, World, make_spec


def fill_with_made(world: World) -> None:
    made = [ItemId(f"synthetic:{number}") for number in range(200)]
    vectors = np.stack([vector_of(item) for item in made])
    payloads = [Payload(text="made", metadata={"labels": "a"})] * len(made)
    world.index.upsert("pool", Items(ids=made, vectors=vectors, payloads=payloads))


def test_held_out_items_and_audits_are_real(world: World) -> None:
    fill_with_made(world)
    world.client.create_campaign(make_spec(budget=60, evaluation=pb.EvaluationSpec(items=20)))
    world.client.run_round("c")
    world.client.draw_audit("c", items=15)
    tasks = world.client.lease_tasks("c", annotator="x", max_tasks=100).tasks
    measured = [task.item_id for task in tasks if task.purpose != pb.LABEL_PURPOSE_TRAINING]
    assert len(measured) == 35
    assert not any(is_made(item) for item in measured)


def test_made_items_are_trained_on_unless_the_campaign_excludes_them(world: World) -> None:
    fill_with_made(world)
    for name, excludes in (("all", False), ("real", True)):
        world.client.create_campaign(make_spec(name=name, seed_size=0, exclude_synthetic=excludes))
        world.client.submit_labels(name, {"i000": ["a"], "i001": ["b"], "synthetic:7": ["a"]}, annotator="x")
        world.client.run_round(name)
    trained = {header.campaign: set(examples.ids) for header, examples in world.learner.trained}
    assert trained["all"] == {"i000", "i001", "synthetic:7"}
    assert trained["real"] == {"i000", "i001"}


def test_no_campaign_picks_what_another_one_made(world: World) -> None:
    fill_with_made(world)
    world.client.create_campaign(make_spec(name="maker"))
    with world.scheduler.store.writing() as session:
        campaign = campaigns.lock(session, "maker")
        items = [stream_pb2.SyntheticItem(item_id=f"synthetic:{number}") for number in range(200)]
        synthetic.add(session, campaign.id, items, now=world.clock.now())
    world.client.create_campaign(make_spec(name="other", seed_size=10, batch_size=50, budget=60, oracle=DATASET))
    for _ in range(2):
        world.client.run_round("other")
    picked = [item for items in world.picks("other").values() for item in items]
    assert len(picked) == 60
    assert not any(is_made(item) for item in picked)
