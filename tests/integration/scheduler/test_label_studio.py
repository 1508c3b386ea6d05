"""Campaigns in a real Label Studio."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from scheduler.label_studio.linking import SECRET_HEADER
from scheduler.label_studio.routes import router
from sealpool.cli.app import run
from sealpool.client import ClientOptions, LabelStudioClient
from sealpool.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from sealpool.v1 import common_pb2, scheduler_pb2
from tests.support.http_server import serving
from tests.support.label_studio_server import (
    EMAIL,
    TOKEN,
    LabelStudioProcess,
    choice_result,
    comment_result,
    find_label_studio,
)
from tests.unit.scheduler.world import World, make_spec

PASSWORD = "predict-me"


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[LabelStudioProcess]:
    executable = find_label_studio()
    if executable is None:
        pytest.skip("no Label Studio: `make label-studio` installs one, SEALPOOL_LABEL_STUDIO names another")
    seed = request.config.cache.mkdir("label-studio") / f"{_fingerprint(executable)}.sqlite3"
    process = LabelStudioProcess(executable, tmp_path_factory.mktemp("label-studio"), seed=seed)
    try:
        process.start()
        yield process
    finally:
        process.close()


def _fingerprint(executable: str) -> str:
    """Return what changes when another Label Studio is installed there."""
    found = Path(executable).resolve().stat()
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


class Linked:
    """A scheduler that knows the real Label Studio, with the HTTP paths that it calls."""

    def __init__(self, make_world: Callable[..., World], studio: LabelStudioProcess, folder: Path) -> None:
        (folder / "password").write_text(PASSWORD)
        self.studio = studio
        self.servers = folder / "servers.yaml"
        self.use_token(TOKEN)
        self._make_world = make_world
        self._stack = ExitStack()
        self.start()

    def use_token(self, token: str) -> None:
        folder = self.servers.parent
        (folder / "token").write_text(token + "\n")
        self.servers.write_text(
            f"default: {{url: '{self.studio.url}', token_file: '{folder / 'token'}', timeout_s: 20, "
            f"ml_password_file: '{folder / 'password'}'}}\n"
        )

    def start(self, **settings: Any) -> None:
        fixed = {"label_studio_servers": self.servers, "label_studio_sync_every_s": 3600}
        self.world = self._make_world(**{**fixed, **settings})
        self.client = LabelStudioClient(
            self.world.server.address, options=ClientOptions(retry_for_s=0, timeout_s=20, long_timeout_s=30)
        )
        self._stack.callback(self.client.close)
        application = FastAPI()
        application.include_router(router(self.world.scheduler.label_studio.calls, max_body_bytes=1 << 20))
        self.url = self._stack.enter_context(serving(application))

    def campaign(self, name: str, *, rounds: int = 1, **changes: Any) -> None:
        """Begin a campaign and run rounds, all but the last of which are labelled."""
        self.world.client.create_campaign(make_spec(name=name, **changes))
        for number in range(rounds):
            if number:
                self.world.label(name)
            self.world.client.run_round(name)

    def picks(self, name: str) -> list[str]:
        picks = self.world.picks(name)
        return picks[max(picks)]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def linked(make_world: Callable[..., World], studio: LabelStudioProcess, tmp_path: Path) -> Iterator[Linked]:
    made = Linked(make_world, studio, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("shown", "task", "element", "choice"),
    [
        ("text", common_pb2.TASK_KIND_MULTICLASS, "Text", "single"),
        ("text", common_pb2.TASK_KIND_MULTILABEL, "Text", "multiple"),
        ("image", common_pb2.TASK_KIND_MULTICLASS, "Image", "single"),
    ],
)
def test_a_project_has_the_form_that_the_campaign_asks_for(
    linked: Linked, shown: str, task: int, element: str, choice: str
) -> None:
    classes = ["plain", "R&D <\"quoted\"> 'x'", "größer ≥ 5", "$text"]
    linked.campaign(f"form-{shown}-{task}", rounds=0, task=task, classes=classes, pool="pool")
    link = linked.client.link(f"form-{shown}-{task}", shown=shown)
    project = linked.studio.get(f"/api/projects/{link.project_id}")
    form = project["parsed_label_config"]
    assert form["label"]["labels"] == classes
    assert form["label"]["inputs"] == [{"type": element, "valueType": None, "value": shown}]
    assert f'choice="{choice}"' in project["label_config"].partition('name="cannot_tell"')[0]
    assert form["cannot_tell"]["labels"] == ["Cannot tell"]
    assert form["comment"]["type"] == "TextArea"
    assert (project["sampling"], project["show_skip_button"]) == ("Uncertainty sampling", True)
    assert link.project_url == f"{linked.studio.url}/projects/{link.project_id}"


def test_linking_again_answers_the_link_there_is_and_another_one_is_refused(linked: Linked) -> None:
    linked.campaign("again", rounds=0)
    first = linked.client.link("again", webhook_url=linked.url)
    assert linked.client.link("again", webhook_url=linked.url, server="default", shown="text") == first
    assert linked.client.get_link("again") == first
    with pytest.raises(AlreadyExists):
        linked.client.link("again", webhook_url=linked.url, shown="image")
    with pytest.raises(NotFound, match="elsewhere"):
        linked.client.link("again", server="elsewhere")
    with pytest.raises(NotFound, match="campaign"):
        linked.client.link("nobody")
    hooks = linked.studio.get("/api/webhooks/", project=first.project_id)
    assert [hook["url"] for hook in hooks] == [f"{linked.url}/label-studio/again/webhook"]


def test_a_campaign_is_linked_synced_shown_and_unlinked_by_commands(
    linked: Linked, capsys: pytest.CaptureFixture[str]
) -> None:
    linked.campaign("cli")

    def command(*words: str) -> str:
        assert run(["labelstudio", *words, "cli", "--scheduler", linked.world.server.address]) == 0
        return capsys.readouterr().out

    assert f"{linked.studio.url}/projects/" in command("link")
    assert command("sync").strip() == "6 tasks pushed, 0 closed, 0 annotations taken"
    assert json.loads(command("show", "--json"))["pushed"] == 6
    command("unlink")
    assert run(["labelstudio", "show", "cli", "--scheduler", linked.world.server.address]) == 1


def test_tasks_are_pushed_most_wanted_first_with_what_the_model_says(linked: Linked) -> None:
    linked.campaign("push", rounds=2)
    link = linked.client.link("push")
    assert linked.client.sync("push").pushed == 5
    assert linked.client.sync("push").pushed == 0
    there = linked.studio.tasks(link.project_id)
    assert list(there) == linked.picks("push")
    for rank, (item, task) in enumerate(there.items()):
        expected = next(iter(linked.world.learner.predict("push", ids=[item])))
        assert task["data"] == {
            "text": linked.world.index.pools["pool"][item].text,  # type: ignore[index]
            "item_id": item,
            "round": 1,
            "score": 1 / (rank + 1),
        }
        said = task["predictions"][0]
        assert said["model_version"] == "push/1"
        assert said["score"] == pytest.approx(float(expected.probabilities[0].max()))
        assert said["result"][0]["value"]["choices"] == ["ab"[int(expected.probabilities[0].argmax())]]
    doubtful = min(there.values(), key=lambda task: float(task["predictions"][0]["score"]))
    assert linked.studio.get(f"/api/projects/{link.project_id}/next")["id"] == doubtful["id"]


def test_the_latest_model_decides_what_label_studio_hands_out(linked: Linked) -> None:
    linked.campaign("latest", rounds=2)
    link = linked.client.link("latest")
    linked.client.sync("latest")
    first, *done = linked.picks("latest")  # one of them is left for later
    linked.world.client.submit_labels("latest", {item: [linked.world.truth(item)] for item in done}, annotator="ann")
    linked.world.client.run_round("latest")
    assert linked.client.sync("latest").closed == 4
    assert list(linked.studio.tasks(link.project_id)) == [first, *linked.picks("latest")]
    assert linked.studio.get(f"/api/projects/{link.project_id}")["model_version"] == "latest/2"
    assert linked.studio.get(f"/api/projects/{link.project_id}/next")["data"]["round"] == 2


def test_what_waits_in_label_studio_is_not_handed_out_elsewhere_until_it_is_unlinked(linked: Linked) -> None:
    linked.campaign("held")
    linked.client.link("held")
    linked.client.sync("held")
    assert not linked.world.client.lease_tasks("held", annotator="ann", max_tasks=10).tasks
    linked.client.unlink("held")
    assert len(linked.world.client.lease_tasks("held", annotator="ann", max_tasks=10).tasks) == 6
    with pytest.raises(NotFound):
        linked.client.get_link("held")
    with pytest.raises(NotFound):
        linked.client.unlink("held")


def test_an_annotation_arrives_by_polling_and_its_update_corrects_it(linked: Linked) -> None:
    linked.campaign("poll")
    link = linked.client.link("poll")
    linked.client.sync("poll")
    item, task = next(iter(linked.studio.tasks(link.project_id).items()))
    annotation = linked.studio.annotate(task["id"], "b")
    assert linked.client.sync("poll").received == 1
    assert linked.client.sync("poll").received == 0
    linked.studio.patch(f"/api/annotations/{annotation}/", {"result": [choice_result("label", "a")]})
    done = linked.client.sync("poll")
    assert (done.received, done.link.received, done.link.pushed, done.link.error) == (1, 2, 6, "")
    labels = linked.world.labels("poll")
    assert [(one.item_id, list(one.classes), one.annotator, one.corrects) for one in labels] == [
        (item, ["b"], EMAIL, False),
        (item, ["a"], EMAIL, True),
    ]


def test_an_annotation_that_comes_by_webhook_and_by_polling_counts_once(linked: Linked) -> None:
    linked.campaign("hook")
    link = linked.client.link("hook", webhook_url=linked.url)
    linked.client.sync("hook")
    tasks = linked.studio.tasks(link.project_id)
    annotation = linked.studio.annotate(next(iter(tasks.values()))["id"], "a")
    assert [list(label.classes) for label in linked.world.labels("hook")] == [["a"]]  # it calls before it answers
    linked.studio.patch(f"/api/annotations/{annotation}/", {"result": [choice_result("label", "b")]})
    assert [list(label.classes) for label in linked.world.labels("hook")] == [["a"], ["b"]]
    done = linked.client.sync("hook")
    assert (done.received, done.link.received) == (0, 2)
    assert len(linked.world.labels("hook")) == 2


def test_a_webhook_without_its_secret_is_refused(linked: Linked) -> None:
    linked.campaign("secret")
    linked.client.link("secret", webhook_url=linked.url)
    for path, headers in (("secret", {}), ("secret", {SECRET_HEADER: "x"}), ("nobody", {SECRET_HEADER: ""})):
        answer = httpx.post(f"{linked.url}/label-studio/{path}/webhook", json={}, headers=headers)
        assert answer.status_code == 401


def test_the_http_front_serves_what_label_studio_calls(make_world: Callable[..., World]) -> None:
    world = make_world(http_listen="127.0.0.1:0")
    base = f"http://{world.scheduler.http_address}/label-studio/c"
    assert httpx.post(f"{base}/webhook", json={}).status_code == 401
    assert httpx.get(f"{base}/ml/health", auth=("any", "")).status_code == 401
    assert httpx.post(f"{base}/ml/predict", content=b"{").status_code == 401  # before anything is read
    assert httpx.post(f"{base}/ml/webhook", json={}).json() == {}


def test_skips_doubts_and_comments_are_told_apart(linked: Linked) -> None:
    linked.campaign("doubt")
    link = linked.client.link("doubt")
    linked.client.sync("doubt")
    there = linked.studio.tasks(link.project_id)
    item = {task["id"]: name for name, task in there.items()}
    skipped, unclear, empty, strange, sure, _ = there.values()
    linked.studio.annotate(skipped["id"], was_cancelled=True)
    unclear_result = [choice_result("cannot_tell", "Cannot tell"), comment_result("cut off")]
    linked.studio.annotate(unclear["id"], result=unclear_result)
    linked.studio.annotate(empty["id"])
    linked.studio.annotate(strange["id"], "a", result=[choice_result("label", "a", "b")])
    linked.studio.annotate(sure["id"], "a", result=[choice_result("label", "a"), comment_result("why not")])
    assert linked.client.sync("doubt").received == 4
    said = [
        (one.item_id, one.outcome, list(one.classes), one.comment)
        for one in linked.world.client.list_annotations("doubt")
    ]
    assert said == [
        (item[skipped["id"]], scheduler_pb2.ANNOTATION_OUTCOME_SKIP, [], ""),
        (item[unclear["id"]], scheduler_pb2.ANNOTATION_OUTCOME_CANNOT_TELL, [], "cut off"),
        (item[empty["id"]], scheduler_pb2.ANNOTATION_OUTCOME_CANNOT_TELL, [], ""),
        (item[sure["id"]], scheduler_pb2.ANNOTATION_OUTCOME_LABEL, ["a"], "why not"),
    ]
    linked.client.sync("doubt")
    assert linked.world.log.getvalue().count("annotation left out") == 1


def test_an_item_that_somebody_could_not_tell_is_put_in_again_once_there_is_somebody_else(linked: Linked) -> None:
    linked.campaign("more")
    link = linked.client.link("more")
    linked.client.sync("more")
    (item, task), (other, _), *_ = linked.studio.tasks(link.project_id).items()
    linked.studio.annotate(task["id"])
    done = linked.client.sync("more")
    assert (done.received, done.pushed, done.link.pushed) == (1, 0, 6)
    free = linked.world.client.get_campaign("more")
    assert (free.open_tasks, free.leased_tasks) == (1, 5)
    linked.world.client.submit_labels("more", {other: ["a"]}, annotator="ann")
    assert linked.client.sync("more").pushed == 1
    again = linked.studio.tasks(link.project_id)[item]
    assert again["id"] != task["id"]
    linked.studio.annotate(again["id"], "a")
    done = linked.client.sync("more")
    assert (done.received, done.pushed) == (1, 0)
    assert [label.item_id for label in linked.world.labels("more")] == [other, item]


def test_what_is_answered_elsewhere_or_withdrawn_leaves_label_studio(linked: Linked) -> None:
    linked.campaign("close")
    link = linked.client.link("close")
    linked.client.sync("close")
    first, second, *others = linked.studio.tasks(link.project_id)
    linked.studio.annotate(linked.studio.tasks(link.project_id)[second]["id"], "a")
    linked.world.client.submit_labels("close", {first: ["a"], second: ["b"]}, annotator="ann")
    assert linked.client.sync("close").closed == 1
    assert set(linked.studio.tasks(link.project_id)) == {second, *others}  # annotated: its history stays
    linked.world.client.archive_campaign("close")
    assert linked.client.sync("close").closed == 4
    assert set(linked.studio.tasks(link.project_id)) == {second}
    with pytest.raises(NotFound):
        linked.client.get_link("close")
    with pytest.raises(FailedPrecondition, match="archived"):
        linked.client.link("close")


def test_an_annotation_is_never_deleted_with_its_task(linked: Linked) -> None:
    linked.campaign("both", annotation=scheduler_pb2.AnnotationSpec(annotations=2))
    link = linked.client.link("both")
    linked.client.sync("both")
    item, task = next(iter(linked.studio.tasks(link.project_id).items()))
    linked.studio.annotate(task["id"], "a")  # one of two: Label Studio would still hand it out
    linked.client.sync("both")
    linked.world.client.submit_labels("both", {item: ["a"]}, annotator="ann")
    assert linked.client.sync("both").closed == 1
    assert linked.studio.tasks(link.project_id)[item]["total_annotations"] == 1
    assert [label.item_id for label in linked.world.labels("both")] == [item]


def test_a_project_linked_once_more_goes_on_and_counts_nothing_twice(linked: Linked) -> None:
    linked.campaign("relink")
    link = linked.client.link("relink")
    linked.client.sync("relink")
    linked.studio.annotate(next(iter(linked.studio.tasks(link.project_id).values()))["id"], "a")
    linked.client.sync("relink")
    linked.client.unlink("relink")
    again = linked.client.link("relink")
    assert again.project_id == link.project_id
    done = linked.client.sync("relink")
    assert (done.received, done.pushed, done.link.pushed) == (0, 0, 6)
    assert len(linked.studio.tasks(link.project_id)) == 6


def test_a_refused_label_is_asked_for_again_and_told(linked: Linked) -> None:
    linked.campaign("budget", budget=2, seed_size=2, batch_size=1)
    link = linked.client.link("budget")
    linked.client.sync("budget")
    there = linked.studio.tasks(link.project_id)
    stranger = next(item for item in linked.world.index.pools["pool"] if item not in there)
    linked.world.client.submit_labels("budget", {stranger: ["a"]}, annotator="ann")
    for task in there.values():
        linked.studio.annotate(task["id"], "a")
    done = linked.client.sync("budget")
    assert done.received == 1
    assert "budget" in done.link.error
    assert "budget" in linked.client.sync("budget").link.error


def test_label_studio_may_go_away_and_come_back(linked: Linked) -> None:
    linked.campaign("away")
    link = linked.client.link("away")
    linked.studio.stop()
    try:
        with pytest.raises(Unavailable, match="does not answer"):
            linked.client.sync("away")
        assert "does not answer" in linked.client.get_link("away").error
        assert linked.world.client.get_campaign("away").leased_tasks == 0  # others may do them meanwhile
    finally:
        linked.studio.start()
    done = linked.client.sync("away")
    assert (done.pushed, done.link.error) == (6, "")
    assert len(linked.studio.tasks(link.project_id)) == 6


def test_the_scheduler_keeps_projects_in_step_by_itself(linked: Linked) -> None:
    linked.start(label_studio_sync_every_s=0.1)
    linked.campaign("loop")
    link = linked.client.link("loop")
    watch = linked.world.client.watch_campaign("loop")
    while not (tasks := linked.studio.tasks(link.project_id)):
        pass
    linked.studio.annotate(next(iter(tasks.values()))["id"], "a")
    assert next(event for event in watch if event.HasField("labels_arrived")).labels_arrived.accepted == 1


def test_a_personal_access_token_does_as_well(linked: Linked) -> None:
    linked.use_token(linked.studio.post("/api/token/", {})["token"])
    linked.start()
    linked.campaign("personal")
    linked.client.link("personal")
    assert linked.client.sync("personal").pushed == 6


def test_a_wrong_token_is_told(linked: Linked) -> None:
    linked.use_token("f" * 40)
    linked.start()
    linked.campaign("stranger")
    with pytest.raises(FailedPrecondition, match="refuses the token"):
        linked.client.link("stranger")


def test_label_studio_asks_the_model_for_predictions(linked: Linked) -> None:
    linked.campaign("backend", rounds=2)
    link = linked.client.link("backend")
    linked.client.sync("backend")
    body = {
        "project": link.project_id,
        "url": f"{linked.url}/label-studio/backend/ml",
        "title": "sealpool",
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": "label-studio",
        "basic_auth_pass": PASSWORD,
    }
    wrong = linked.studio.http.post("/api/ml/", json={**body, "basic_auth_pass": "no"})
    assert "authentication" in wrong.text
    backend = linked.studio.post("/api/ml/", body)
    assert linked.studio.get(f"/api/ml/{backend['id']}")["readable_state"] == "Connected"
    answer = linked.studio.post(f"/api/ml/{backend['id']}/predict/test?random=true", {})
    task, said = answer["task"], answer["response"][0]
    expected = next(iter(linked.world.learner.predict("backend", ids=[task["data"]["item_id"]])))
    assert said["model_version"] == "backend/1"
    assert said["score"] == pytest.approx(float(expected.probabilities.max()))


_CHILD = """
import sys
from pathlib import Path
from sealpool.client import ClientOptions, LabelStudioClient
from tests.unit.scheduler.world import World, make_spec

world = World(Path(sys.argv[1]), label_studio_servers=sys.argv[2], label_studio_sync_every_s=3600)
client = LabelStudioClient(world.server.address, options=ClientOptions(retry_for_s=0))
name = sys.argv[3]
if sys.argv[4] == "link":
    world.client.create_campaign(make_spec(name=name))
    world.client.run_round(name)
    client.link(name)
client.sync(name)
"""


def _run_until_killed(folder: Path, servers: Path, name: str, what: str, failpoint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), str(servers), name, what],
        env={**os.environ, "SEALPOOL_FAILPOINT": failpoint},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def test_a_kill_at_any_point_doubles_nothing(linked: Linked, tmp_path: Path) -> None:
    folder, studio = tmp_path / "killed", linked.studio
    _run_until_killed(folder, linked.servers, "kill", "link", "scheduler.label_studio.project_made")
    world = World(folder, label_studio_servers=linked.servers, label_studio_sync_every_s=3600)
    with LabelStudioClient(world.server.address) as client:
        link = client.link("kill")
    projects = studio.get("/api/projects", page_size=1000)["results"]
    assert [one["id"] for one in projects if one["title"] == "sealpool kill"] == [link.project_id]
    world.close()

    _run_until_killed(folder, linked.servers, "kill", "sync", "scheduler.label_studio.pushed")
    tasks = studio.tasks(link.project_id)
    studio.annotate(next(iter(tasks.values()))["id"], "a")
    _run_until_killed(folder, linked.servers, "kill", "sync", "scheduler.label_studio.before_commit")
    _run_until_killed(folder, linked.servers, "kill", "sync", "scheduler.label_studio.after_commit")

    world = World(folder, label_studio_servers=linked.servers, label_studio_sync_every_s=3600)
    with LabelStudioClient(world.server.address) as client:
        done = client.sync("kill")
    labels = world.labels("kill")
    world.close()
    assert (done.received, done.pushed, done.link.received, done.link.pushed) == (0, 0, 1, 6)
    assert len(labels) == 1
    assert [task["id"] for task in studio.tasks(link.project_id).values()] == [task["id"] for task in tasks.values()]
