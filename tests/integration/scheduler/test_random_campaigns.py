"""Campaigns of every kind, to which everything happens in a random order: what must hold at all times does.

SEALPOOL_RANDOM_CAMPAIGNS says how many instead of the few of a usual run, SEALPOOL_RANDOM_SEED from which seed on.
"""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from scheduler import messages
from scheduler.domain.states import Audience, DrawKind, LabelPurpose, Outcome, RoundState, TaskState
from scheduler.storage import campaigns, drawn_items
from scheduler.storage.models import Annotation, Campaign, Label, Round, Task
from sealpool.errors import FailedPrecondition, InvalidArgument, Unavailable
from sealpool.v1 import scheduler_pb2 as pb
from tests.unit.scheduler.world import DATASET, World, make_spec

CAMPAIGNS = int(os.environ.get("SEALPOOL_RANDOM_CAMPAIGNS", "3"))
FIRST = int(os.environ.get("SEALPOOL_RANDOM_SEED", "0"))
STEPS = 40
PEOPLE = ("ann", "bob", "eve")


def some_spec(rng: random.Random) -> pb.CampaignSpec:
    """Return a spec of any kind."""
    people = rng.random() < 0.7
    several = people and rng.random() < 0.3
    kind = rng.choice(["none", "items", "points", "both"])
    evaluation = pb.EvaluationSpec(
        items=rng.randint(1, 4) if kind in ("items", "both") else 0,
        test_pool=8 if kind in ("points", "both") else 0,
        test_points=rng.randint(1, 3) if kind in ("points", "both") else 0,
    )
    stopping = pb.StoppingSpec(
        stop_set=10, overall_uncertainty=rng.choice([0.5, 0.99]), patience=1, complete=rng.random() < 0.7
    )
    fields: dict[str, Any] = {
        "seed": rng.randint(0, 2**32),
        "seed_size": rng.choice([0, 4, 6]),
        "batch_size": rng.randint(1, 6),
        "budget": rng.randint(16, 40),
        "fill": rng.choice([pb.FILL_RANDOM, pb.FILL_NONE]),
        "rule": pb.RoundRule(after_labels=rng.choice([0, 1, 4, 9]), open_rounds=rng.choice([0, 1, 2])),
        "annotation": pb.AnnotationSpec(
            annotations=2 if several else 1, max_annotations=3 if several else 0, give_up_after=rng.choice([1, 2])
        ),
        "evaluation": evaluation,
        "oracle": pb.OracleSpec() if people else DATASET,
    }
    if rng.random() < 0.3:
        fields["stopping"] = stopping
    return make_spec(**fields)


class Walk:
    """One campaign, what happened to it, and what is known of it."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.spec = some_spec(self.rng)
        self.told: list[str] = []
        for item in list(world.index.pools["pool"])[self.rng.choice([25, 60]) :]:
            del world.index.pools["pool"][item]
        world.client.create_campaign(self.spec)

    def step(self) -> None:
        """Let one thing happen."""
        name, weight = zip(*STEPS_WEIGHTS.items(), strict=True)
        self.told.append(self.rng.choices(name, weight)[0])
        try:
            getattr(self, self.told[-1])()
        except (FailedPrecondition, InvalidArgument, Unavailable) as error:
            self.told.append(f"  refused: {error.message}")

    def round(self) -> None:
        self.world.client.run_round("c")

    def lease(self) -> None:
        who = self.rng.choice(PEOPLE)
        with self.world.scheduler.store.reading() as session:
            held = set(session.scalars(select(Task.id).where(Task.lease_expires_at > self.world.clock.now())))
        tasks = self.world.client.lease_tasks("c", annotator=who, max_tasks=self.rng.randint(1, 8), lease_s=60).tasks
        assert len({task.item_id for task in tasks}) == len(tasks)
        assert not held & {int(task.id) for task in tasks}, "leased twice"
        self._submit(who, [task.item_id for task in tasks])

    def unsolicited(self) -> None:
        self._submit(self.rng.choice(PEOPLE), self.rng.sample(list(self.world.index.pools["pool"]), 2))

    def correct(self) -> None:
        labels = self.world.labels()
        if labels:
            item = self.rng.choice(labels).item_id
            self.world.client.submit_labels("c", {item: [self.rng.choice("ab")]}, annotator=self.rng.choice(PEOPLE))

    def audit(self) -> None:
        self.world.client.draw_audit("c", items=self.rng.randint(1, 5))

    def release(self) -> None:
        self.world.client.release_tasks("c", annotator=self.rng.choice(PEOPLE))

    def wait(self) -> None:
        self.world.clock.advance(61)
        self.world.scheduler._house.keep()

    def pause(self) -> None:
        self.world.client.pause_campaign("c")

    def resume(self) -> None:
        self.world.client.resume_campaign("c")

    def update(self) -> None:
        changed = pb.CampaignSpec()
        changed.CopyFrom(self.spec)
        changed.budget = max(self.spec.budget + self.rng.randint(-4, 8), 16)
        changed.batch_size = self.rng.randint(1, 6)
        self.world.client.update_campaign(changed)
        self.spec = changed

    def shrink(self) -> None:
        items = list(self.world.index.pools["pool"])
        if len(items) > 22:
            del self.world.index.pools["pool"][self.rng.choice(items)]

    def trouble(self) -> None:
        self.world.learner.troubles.once(self.rng.choice(["train", "select"]), Unavailable("away"))

    def restart(self) -> None:
        self.world.restart()

    def end(self) -> None:
        """Let everybody who is asked answer, and every round run that can: then nothing may be left to do."""
        self.world.learner.troubles._errors.clear()
        if self.world.client.get_campaign("c").state == pb.CAMPAIGN_STATE_PAUSED:
            self.world.client.resume_campaign("c")
        for turn in range(200):
            self.world.clock.advance(61)
            self.world.scheduler._house.keep()
            if self.world.client.get_campaign("c").state == pb.CAMPAIGN_STATE_COMPLETED:
                return
            labelled = self._everybody_labels(f"turn {turn}")
            try:
                self.world.client.run_round("c")
            except FailedPrecondition as error:
                if not labelled:
                    self.told.append(error.message)
                    break
        assert self._may_rest(), "it is stuck"

    def check(self) -> None:
        """Hold the database against what it must be."""
        with self.world.scheduler.store.reading() as session:
            campaign = campaigns.get(session, "c")
            labels = session.scalars(select(Label).order_by(Label.sequence)).all()
            tasks = session.scalars(select(Task)).all()
            rounds = session.scalars(select(Round)).all()
            annotations = session.scalars(select(Annotation)).all()
            held_out = {k: set(drawn_items.of_kind(session, campaign.id, k)) for k in DrawKind}
            shown = messages.campaign_message(session, campaign, now=self.world.clock.now())
        self._check_budget(campaign, labels)
        assert (shown.labels, shown.evaluation_labels) == (campaign.labelled, campaign.evaluation_labelled)
        assert shown.open_tasks + shown.leased_tasks == sum(task.state == TaskState.OPEN for task in tasks)
        self._check_labels(labels, annotations)
        self._check_tasks(campaign, tasks, rounds)
        of_nothing_else = held_out[DrawKind.EVALUATION] | held_out[DrawKind.TEST_POOL]
        assert not held_out[DrawKind.EVALUATION] & held_out[DrawKind.TEST_POOL]
        for task in tasks:
            is_evaluation = task.purpose == LabelPurpose.EVALUATION
            assert (task.item_id in of_nothing_else) == is_evaluation, f"{task.item_id} is asked for {task.purpose}"
        for _, examples in self.world.learner.trained:
            assert not of_nothing_else & set(examples.ids), "trained on what is held out"
        audited = {task.item_id for task in tasks if task.purpose == LabelPurpose.AUDIT}
        trained = {task.item_id for task in tasks if task.purpose == LabelPurpose.TRAINING}
        assert not audited & trained

    def _check_budget(self, campaign: Campaign, labels: Any) -> None:
        by_purpose: dict[str, set[str]] = defaultdict(set)
        for label in labels:
            by_purpose[label.purpose].add(label.item_id)
        assert campaign.labelled == len(by_purpose[LabelPurpose.TRAINING])
        assert campaign.evaluation_labelled == len(by_purpose[LabelPurpose.EVALUATION])
        spent = campaign.labelled + campaign.evaluation_labelled
        assert spent <= self.spec.budget

    def _check_labels(self, labels: Any, annotations: Any) -> None:
        last = {(label.purpose, label.item_id): label for label in labels}
        assert [label.sequence for label in labels] == sorted({label.sequence for label in labels})
        seen: set[tuple[str, str]] = set()
        for label in labels:
            assert label.corrects == ((label.purpose, label.item_id) in seen)
            seen.add((label.purpose, label.item_id))
        if self.spec.annotation.annotations > 1:
            return
        in_order = sorted(annotations, key=lambda one: one.sequence)
        said = {(one.purpose, one.item_id): one.classes for one in in_order if one.outcome == Outcome.LABEL}
        assert {key: label.classes for key, label in last.items()} == said, "labels are not the last word"

    def _check_tasks(self, campaign: Campaign, tasks: Any, rounds: Any) -> None:
        open_ = [task for task in tasks if task.state == TaskState.OPEN]
        if campaign.state == "completed":
            assert not [task for task in open_ if task.purpose == LabelPurpose.TRAINING]
        held = Counter(
            (task.item_id, task.purpose, task.annotator)
            for task in open_
            if task.annotator and task.lease_expires_at and task.lease_expires_at > self.world.clock.now()
        )
        assert max(held.values(), default=1) == 1, "an annotator has an item twice"
        assert all(task.audience == Audience.PEOPLE for task in open_ if self.spec.oracle.name != "dataset")
        assert len([row for row in rounds if row.state not in (RoundState.FINISHED, RoundState.FAILED)]) <= 1

    def _everybody_labels(self, note: str) -> int:
        found = 0
        for who in (*PEOPLE, note):
            try:
                tasks = self.world.client.lease_tasks("c", annotator=who, max_tasks=100).tasks
            except FailedPrecondition:
                return found
            for task in tasks:
                try:
                    self.world.client.submit_labels("c", {task.item_id: [self._truth(task.item_id)]}, annotator=who)
                    found += 1
                except FailedPrecondition as error:
                    self.told.append(f"  refused at the end: {error.message}")
        self.check()
        return found

    def _may_rest(self) -> bool:
        campaign = self.world.client.get_campaign("c")
        if campaign.state != pb.CAMPAIGN_STATE_ACTIVE:
            return True
        why = self.told[-1]
        # A larger budget makes one active again whose pool has nothing left; where nothing fills, no round follows.
        found_nothing = self.spec.fill == pb.FILL_NONE and "update" in self.told
        # People can still bring a label that differs, or the first ones.
        return "cannot train" in why or found_nothing or (not campaign.rounds and not campaign.labels)

    def _submit(self, who: str, items: list[str]) -> None:
        given = []
        for item in items:
            chance = self.rng.random()
            if chance < 0.6:
                right = self._truth(item) if self.rng.random() < 0.9 else self.rng.choice("ab")
                given.append(pb.NewLabel(item_id=item, classes=[right]))
            elif chance < 0.8:
                said = self.rng.choice([pb.ANNOTATION_OUTCOME_SKIP, pb.ANNOTATION_OUTCOME_CANNOT_TELL])
                given.append(pb.NewLabel(item_id=item, outcome=said))
        if given:
            self.world.client.submit_annotations("c", given, annotator=who)

    def _truth(self, item: str) -> str:
        return "ab"[int(item[1:]) % 2]


STEPS_WEIGHTS = {
    "round": 8,
    "lease": 14,
    "unsolicited": 2,
    "correct": 2,
    "audit": 1,
    "release": 1,
    "wait": 2,
    "pause": 1,
    "resume": 2,
    "update": 1,
    "shrink": 1,
    "trouble": 1,
    "restart": 1,
}


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CAMPAIGNS))
def test_whatever_happens_to_a_campaign_its_promises_hold(make_world: Callable[..., World], seed: int) -> None:
    walk = Walk(make_world(), seed)
    try:
        for _ in range(STEPS):
            walk.step()
            walk.check()
        walk.end()
        walk.check()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{walk.spec}\n" + "\n".join(walk.told)) from error
