"""Labelling in the terminal, apart from the terminal: what a key does to the item in hand, and what is sent."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from sealpool.errors import SealpoolError
from sealpool.v1 import common_pb2, scheduler_pb2

ENTER, ESCAPE, BACKSPACE = "\n", "\x1b", "\x7f"

COMMANDS = "scumq"
"""Letters that are no class's: skip, comment, undo, more of the text, quit. Beside ? (cannot tell) and / (by name)."""

CLASS_KEYS = "1234567890" + "".join(letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in COMMANDS)

_LIKELY = 0.5
"""Multi-label: classes at least so likely are on to begin with."""

_RENEWALS_A_LEASE = 3


class Tasks(Protocol):
    """What of the scheduler's client is used."""

    def get_campaign(self, name: str) -> scheduler_pb2.Campaign:
        """Return the campaign."""

    def lease_tasks(
        self, campaign: str, *, annotator: str, max_tasks: int, lease_s: float, include_predictions: bool
    ) -> scheduler_pb2.LeaseTasksResponse:
        """Take tasks."""

    def renew_leases(self, campaign: str, *, annotator: str, lease_s: float) -> scheduler_pb2.RenewLeasesResponse:
        """Hold all of the annotator's tasks for longer."""

    def release_tasks(self, campaign: str, *, annotator: str) -> int:
        """Give all of the annotator's tasks back."""

    def submit_annotations(
        self, campaign: str, annotations: list[scheduler_pb2.NewLabel], *, annotator: str
    ) -> scheduler_pb2.SubmitLabelsResponse:
        """Hand in what the annotator said."""


@dataclass(slots=True)
class Hand:
    """The item in hand, and what has been done to it so far."""

    task: scheduler_pb2.Task
    chosen: list[str] = field(default_factory=list)
    """Multi-label: the classes that are on."""
    comment: str = ""
    was: str = ""
    """What was said of it before it was undone."""
    page: int = 0
    wants_none: bool = False
    """Multi-label: Enter was pressed with no class on."""


class LabelSession:
    """One annotator at one campaign: takes a few tasks at a time and hands each answer in at once.

    Parameters
    ----------
    batch
        Tasks taken at once: more ask the scheduler less often, and keep more from other annotators.
    lease_s
        How long they stay his without a sign of life; 0 for the campaign's.
    monotonic
        Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        client: Tasks,
        campaign: str,
        *,
        annotator: str,
        batch: int,
        lease_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._annotator = annotator
        self._batch = batch
        self._lease_s = lease_s
        self._monotonic = monotonic
        about = client.get_campaign(campaign)
        self.campaign = campaign
        self.classes = list(about.spec.classes)
        self.is_multilabel = about.spec.task == common_pb2.TASK_KIND_MULTILABEL
        self.budget = about.spec.budget
        self.labelled = about.labels
        self.open_tasks = about.open_tasks
        self.hand: Hand | None = None
        self.message = ""
        self.typed: str | None = None
        """What has been typed of a class's name; None while none is."""
        self.is_over = False
        self.answered = 0
        self._waiting: list[Hand] = []
        self._done: list[tuple[Hand, str]] = []
        self.renew_every_s = (lease_s or about.spec.lease_seconds or 3600.0) / _RENEWALS_A_LEASE
        self._renew_at = monotonic() + self.renew_every_s
        self._lease()
        self.is_over = self.hand is None

    @property
    def keys(self) -> dict[str, str]:
        """The classes that have a key, by key."""
        return dict(zip(CLASS_KEYS, self.classes, strict=False))

    def matches(self) -> list[str]:
        """Return the classes whose names begin with what was typed, then those that hold it."""
        typed = (self.typed or "").casefold()
        first = [name for name in self.classes if name.casefold().startswith(typed)]
        return first + [name for name in self.classes if typed in name.casefold() and name not in first]

    def press(self, key: str) -> None:
        """Do what a key asks; longer inputs are names of classes, or / and the beginning of one."""
        self.message = ""
        if self.hand is None:
            self._press_without(key)
        elif self.typed is not None:
            self._type(key)
        elif key in self.keys:
            self._choose(self.keys[key])
        elif key in self.classes and key not in COMMANDS:
            self._choose(key)
        elif key == ENTER:
            self._accept()
        elif key.startswith("/"):
            self._begin_to_type(key[1:])
        else:
            self._command(key)

    def comment(self, text: str) -> None:
        """Set what is said beside the answer to the item in hand."""
        if self.hand is not None:
            self.hand.comment = text

    def tick(self) -> None:
        """Hold the tasks for longer if it is time to: to be called while a key is waited for."""
        if self._monotonic() < self._renew_at:
            return
        self._renew_at = self._monotonic() + self.renew_every_s
        held = [*self._waiting, *([self.hand] if self.hand is not None else [])]
        leased = sum(not one.was for one in held)
        if not leased:
            return
        try:
            answer = self._client.renew_leases(self.campaign, annotator=self._annotator, lease_s=self._lease_s)
        except SealpoolError as error:
            self.message = f"leases not renewed: {error.message}"
            return
        if answer.renewed < leased:
            self.message = "some tasks went to somebody else meanwhile; answers are taken all the same"

    def close(self) -> None:
        """Give back what was not answered."""
        if self.hand is not None or self._waiting:
            with suppress(SealpoolError):  # the leases run out by themselves
                self._client.release_tasks(self.campaign, annotator=self._annotator)
        self.hand, self._waiting = None, []

    def _press_without(self, key: str) -> None:
        """Do what a key asks while no task is in hand."""
        if key == "u":
            self._undo()
        elif key == "q":
            self.is_over = True
        elif key == ENTER:
            self._take_next()

    def _command(self, key: str) -> None:
        if key == "s":
            self._say([], scheduler_pb2.ANNOTATION_OUTCOME_SKIP, "skipped")
        elif key == "?":
            self._say([], scheduler_pb2.ANNOTATION_OUTCOME_CANNOT_TELL, "cannot tell")
        elif key == "u":
            self._undo()
        elif key in ("m", " ") and self.hand is not None:
            self.hand.page += 1
        elif key == "q":
            self.is_over = True
        elif key.isprintable():
            self.message = f"{key!r} is no class and no command"

    def _choose(self, name: str) -> None:
        hand = self.hand
        if hand is None:
            return
        if not self.is_multilabel:
            self._label([name])
        elif name in hand.chosen:
            hand.chosen.remove(name)
        else:
            hand.chosen.append(name)
            hand.wants_none = False

    def _accept(self) -> None:
        hand = self.hand
        if hand is None:
            return
        if self.is_multilabel:
            if not hand.chosen and not hand.wants_none:
                hand.wants_none = True
                self.message = "no class at all? Enter once more"
                return
            self._label([name for name in self.classes if name in hand.chosen])
        elif hand.task.predictions:
            self._label([hand.task.predictions[0].name])
        else:
            self.message = "there is no guess to accept"

    def _begin_to_type(self, typed: str) -> None:
        self.typed = typed
        if typed:  # a whole line: nobody types on
            self._type(ENTER)

    def _type(self, key: str) -> None:
        typed = self.typed or ""
        if key == ENTER:
            found = self.matches()
            self.typed = None
            if found:
                self._choose(found[0])
            else:
                self.message = f"no class has {typed!r} in its name"
        elif key == ESCAPE:
            self.typed = None
        elif key == BACKSPACE:
            self.typed = typed[:-1] if typed else None
        elif key.isprintable():
            self.typed = typed + key

    def _label(self, classes: list[str]) -> None:
        self._say(classes, scheduler_pb2.ANNOTATION_OUTCOME_LABEL, ", ".join(classes) or "no class")

    def _say(self, classes: Iterable[str], outcome: scheduler_pb2.AnnotationOutcome.ValueType, said: str) -> None:
        hand = self.hand
        if hand is None:
            return
        label = scheduler_pb2.NewLabel(
            item_id=hand.task.item_id, classes=classes, outcome=outcome, comment=hand.comment
        )
        try:
            answer = self._client.submit_annotations(self.campaign, [label], annotator=self._annotator)
        except SealpoolError as error:
            self.message = f"not taken: {error.message}"
            return
        self.labelled = answer.labels
        self.answered += not hand.was
        self.message = f"{hand.task.item_id}: {said}" + (f" instead of {hand.was}" if hand.was else "")
        self._done.append((hand, said))
        self._take_next()

    def _undo(self) -> None:
        if not self._done:
            self.message = "nothing to undo"
            return
        if self.hand is not None:
            self._waiting.insert(0, self.hand)
        before, said = self._done.pop()
        self.hand = Hand(before.task, chosen=list(before.chosen), comment=before.comment, was=said)
        self.message = f"{before.task.item_id} again, which was: {said}"

    def _take_next(self) -> None:
        self.hand = None
        try:
            self._lease()
        except SealpoolError as error:  # the answer before it is handed in: that stands
            self.message = f"no task: {error.message}"

    def _lease(self) -> None:
        if not self._waiting:
            answer = self._client.lease_tasks(
                self.campaign,
                annotator=self._annotator,
                max_tasks=self._batch,
                lease_s=self._lease_s,
                include_predictions=True,
            )
            self.open_tasks = answer.open_tasks
            self._waiting = [Hand(task, chosen=self._likely(task)) for task in answer.tasks]
        self.hand = self._waiting.pop(0) if self._waiting else None

    def _likely(self, task: scheduler_pb2.Task) -> list[str]:
        return [one.name for one in task.predictions if self.is_multilabel and one.probability >= _LIKELY]

    @property
    def still_open(self) -> int:
        """Tasks that wait, those in hand included."""
        return self.open_tasks + len(self._waiting) + (self.hand is not None)
