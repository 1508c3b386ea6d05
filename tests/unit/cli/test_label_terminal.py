"""Labelling with single keys, apart from any terminal: what is sent, shown and undone."""

import os
import pty
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sealpool.cli.label_terminal_io import LineTerminal, RawTerminal
from sealpool.cli.label_terminal_session import BACKSPACE, CLASS_KEYS, COMMANDS, ENTER, ESCAPE, LabelSession
from sealpool.cli.label_terminal_view import lines_of
from sealpool.errors import FailedPrecondition, SealpoolError, Unavailable
from sealpool.v1 import common_pb2
from sealpool.v1 import scheduler_pb2 as pb

LABEL, SKIP, CANNOT_TELL = (
    pb.ANNOTATION_OUTCOME_LABEL,
    pb.ANNOTATION_OUTCOME_SKIP,
    pb.ANNOTATION_OUTCOME_CANNOT_TELL,
)


@dataclass
class FakeTasks:
    """The scheduler's client: hands out tasks i0, i1, … and keeps what is said."""

    classes: Sequence[str] = ("ham", "spam")
    task: common_pb2.TaskKind.ValueType = common_pb2.TASK_KIND_BINARY
    left: int = 5
    predictions: Sequence[tuple[str, float]] = ()
    text: str = "a text"
    said: list[tuple[str, list[str], int, str]] = field(default_factory=list)
    troubles: list[SealpoolError] = field(default_factory=list)
    renewals: int = 0
    renewed: int = 99
    released: int = 0
    leased: int = 0

    def get_campaign(self, name: str) -> pb.Campaign:
        spec = pb.CampaignSpec(name=name, classes=self.classes, task=self.task, budget=10, lease_seconds=300)
        return pb.Campaign(spec=spec, open_tasks=self.left)

    def lease_tasks(
        self, campaign: str, *, annotator: str, max_tasks: int, lease_s: float, include_predictions: bool
    ) -> pb.LeaseTasksResponse:
        assert include_predictions
        count = min(max_tasks, self.left)
        self.left -= count
        guesses = [pb.ClassProbability(name=name, probability=share) for name, share in self.predictions]
        tasks = [
            pb.Task(id=f"t{n}", item_id=f"i{n}", text=self.text, predictions=guesses)
            for n in range(self.leased, self.leased + count)
        ]
        self.leased += count
        return pb.LeaseTasksResponse(tasks=tasks, open_tasks=self.left)

    def renew_leases(self, campaign: str, *, annotator: str, lease_s: float) -> pb.RenewLeasesResponse:
        self.renewals += 1
        return pb.RenewLeasesResponse(renewed=self.renewed)

    def release_tasks(self, campaign: str, *, annotator: str) -> int:
        self.released += 1
        return 1

    def submit_annotations(
        self, campaign: str, annotations: list[pb.NewLabel], *, annotator: str
    ) -> pb.SubmitLabelsResponse:
        if self.troubles:
            raise self.troubles.pop(0)
        self.said.extend((one.item_id, list(one.classes), one.outcome, one.comment) for one in annotations)
        return pb.SubmitLabelsResponse(labels=len(self.said))


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def session_of(client: FakeTasks, *, batch: int = 2, clock: FakeClock | None = None) -> LabelSession:
    return LabelSession(client, "c", annotator="ann", batch=batch, monotonic=clock or FakeClock())


def press(session: LabelSession, *keys: str) -> LabelSession:
    for key in keys:
        session.press(key)
    return session


def screen(session: LabelSession, rows: int = 30) -> str:
    return "\n".join(lines_of(session, columns=80, rows=rows))


def test_each_key_is_handed_in_at_once() -> None:
    client = FakeTasks()
    session = press(session_of(client), "2", "1", "s", "?")
    assert client.said == [
        ("i0", ["spam"], LABEL, ""),
        ("i1", ["ham"], LABEL, ""),
        ("i2", [], SKIP, ""),
        ("i3", [], CANNOT_TELL, ""),
    ]
    assert (session.answered, session.labelled) == (4, 4)


def test_enter_accepts_the_guess_and_nothing_where_there_is_none() -> None:
    client = FakeTasks(predictions=[("spam", 0.9), ("ham", 0.1)])
    session = session_of(client)
    assert "guess: spam 90.0 % · ham 10.0 %" in screen(session)
    press(session, ENTER)
    assert client.said == [("i0", ["spam"], LABEL, "")]
    without = FakeTasks()
    assert press(session_of(without), ENTER).message == "there is no guess to accept"
    assert not without.said


def test_undo_corrects_the_last_answers_and_goes_on_where_it_was() -> None:
    client = FakeTasks()
    session = press(session_of(client), "1", "s", "u", "u")
    assert "i0  round 0  (was: ham)" in screen(session)
    press(session, "2", "2", "1")
    assert [(item, classes) for item, classes, _, _ in client.said] == [
        ("i0", ["ham"]),
        ("i1", []),
        ("i0", ["spam"]),
        ("i1", ["spam"]),
        ("i2", ["ham"]),
    ]
    assert session.answered == 3


def test_the_very_last_answer_can_be_undone_too() -> None:
    client = FakeTasks(left=1)
    session = press(session_of(client), "1")
    assert session.hand is None
    assert not session.is_over
    assert "no task is open now" in screen(session)
    press(session, "u", "2")
    assert client.said[-1] == ("i0", ["spam"], LABEL, "")
    assert press(session, "q").is_over


def test_several_classes_are_toggled_from_the_guess_on() -> None:
    client = FakeTasks(
        classes=["a1", "b1", "c1"],
        task=common_pb2.TASK_KIND_MULTILABEL,
        predictions=[("b1", 0.9), ("c1", 0.6), ("a1", 0.1)],
    )
    session = session_of(client)
    assert "1 [ ] a1   2 [x] b1   3 [x] c1" in screen(session)
    press(session, "1", "2", ENTER)
    assert client.said == [("i0", ["a1", "c1"], LABEL, "")]


def test_no_class_at_all_is_asked_about_once() -> None:
    client = FakeTasks(task=common_pb2.TASK_KIND_MULTILABEL)
    session = press(session_of(client), ENTER)
    assert (client.said, session.message) == ([], "no class at all? Enter once more")
    press(session, ENTER)
    assert client.said == [("i0", [], LABEL, "")]


def test_many_classes_are_found_by_name() -> None:
    classes = [f"intent {n:03d}" for n in range(150)]
    client = FakeTasks(classes=classes, task=common_pb2.TASK_KIND_MULTICLASS, left=9)
    session = session_of(client)
    assert len(session.keys) == len(CLASS_KEYS) == 31
    assert not set(CLASS_KEYS) & set(COMMANDS)
    assert "and 119 more: / and the name" in screen(session)
    press(session, "/", "1", "4", "8", BACKSPACE, "9")
    assert "intent 149" in screen(session)
    press(session, ENTER)
    press(session, "/", "x", ESCAPE, "/", "x", ENTER)
    assert session.message == "no class has 'x' in its name"
    press(session, "/intent 07", "z")
    assert [classes for _, classes, _, _ in client.said] == [["intent 149"], ["intent 070"], ["intent 030"]]


def test_an_answer_that_is_not_taken_stays_in_hand() -> None:
    client = FakeTasks(troubles=[Unavailable("away"), FailedPrecondition("the budget is spent")])
    session = press(session_of(client), "1", "1")
    assert session.message == "not taken: the budget is spent"
    press(session, "1")
    assert client.said == [("i0", ["ham"], LABEL, "")]


def test_what_is_said_of_an_item_is_shown_and_not_obeyed() -> None:
    client = FakeTasks(classes=("\x1b[2Jham", "spam"), troubles=[FailedPrecondition("\x1b]0;title\x07")])
    session = session_of(client)
    for _ in range(2):
        press(session, "1")
        assert "\x1b" not in screen(session)
        assert "\x07" not in screen(session)
    assert "ham" in screen(session).splitlines()[-1]


def test_a_comment_goes_with_the_answer_and_survives_undo() -> None:
    client = FakeTasks()
    session = session_of(client)
    session.comment("odd")
    press(session, "1", "u", "2", "1")
    assert [comment for *_, comment in client.said] == ["odd", "odd", ""]


def test_leases_are_renewed_while_a_key_is_waited_for_and_given_back_at_the_end() -> None:
    client, clock = FakeTasks(), FakeClock()
    session = session_of(client, clock=clock)
    session.tick()
    assert client.renewals == 0
    clock.now = session.renew_every_s = 100.0
    session.tick()
    session.tick()
    assert (client.renewals, session.message) == (1, "")
    clock.now, client.renewed = 200.0, 1
    session.tick()
    assert "somebody else" in session.message
    session.close()
    session.close()
    assert client.released == 1


def test_a_long_text_is_shown_page_by_page_and_obeyed_nowhere() -> None:
    session = session_of(FakeTasks(text="".join(f"word{n} " for n in range(400)) + "\x1b[2Jend"))
    seen = ""
    for _ in range(20):
        lines = lines_of(session, columns=60, rows=20)
        assert len(lines) <= 20
        seen += "\n".join(lines)
        press(session, "m")
    assert "word0 " in seen
    assert "word399" in seen
    assert "\\x1b[2Jend" in seen
    assert "\x1b" not in seen


def test_keys_of_a_terminal_are_read_one_by_one_and_it_is_restored_after_an_error() -> None:
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(os.dup(theirs), "r") as source, os.fdopen(os.dup(theirs), "w") as target:
            before = termios.tcgetattr(theirs)
            with suppress(ZeroDivisionError), RawTerminal(source, target) as terminal:
                assert not termios.tcgetattr(theirs)[3] & (termios.ICANON | termios.ECHO)
                os.write(ours, "1\x1b[Aé\r\x7f".encode())
                assert [terminal.key(10) for _ in range(4)] == ["1", "é", ENTER, BACKSPACE]
                assert terminal.key(0) is None
                os.write(ours, b"odd\x7f\x7fne\r")
                assert terminal.line("comment: ") == "one"
                raise ZeroDivisionError
            assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_pipe_is_read_line_by_line() -> None:
    import io

    terminal = LineTerminal(io.StringIO("spam\n\nq\n"), io.StringIO())
    assert [terminal.key(1) for _ in range(4)] == ["spam", ENTER, "q", ""]
