"""Label Studio over its REST API: the few calls that keeping a campaign in step takes."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scheduler.label_studio import api
from scheduler.label_studio.servers import LabelStudioServer
from sealpool.errors import FailedPrecondition, NotFound, SealpoolError, Unavailable

if TYPE_CHECKING:
    import httpx

PAGE = 100
_TASK_FIELDS = "id,data,updated_at,is_labeled,annotations,result,was_cancelled,completed_by"
_ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")
_UNAUTHORIZED = 401
_OTHERS_TROUBLE = (408, 425, 429)


class LabelStudioClient:
    """One Label Studio. Any thread may call; httpx keeps the connections.

    Every method raises Unavailable (it does not answer, or is in trouble), FailedPrecondition (it refuses the token or
    the request) or NotFound (the project is gone).

    Parameters
    ----------
    transport
        Stands in for the network in tests.
    """

    def __init__(self, server: LabelStudioServer, *, transport: "httpx.BaseTransport | None" = None) -> None:
        self._server = server
        self._token = server.token.get_secret_value()
        self._is_personal = self._token.count(".") == 2
        self._access = ""
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._http = _http(server, transport)

    def stop(self) -> None:
        """Send no request any more: each raises Unavailable. The one under way ends by itself, or by `timeout_s`."""
        self._stopping.set()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def find_project(self, marker: str) -> api.Project | None:
        """Return the project whose description holds `marker`."""
        for page in self._pages("/api/projects", {"include": "id,description,model_version", "ordering": "id"}):
            for project in page:
                if marker in project.description:
                    return project
        return None

    def create_project(self, fields: api.Json) -> api.Project:
        """Make a project."""
        made: api.Project = api.understood(api.project_of, self._call("POST", "/api/projects", json=fields))
        return made

    def get_project(self, project_id: int) -> api.Project:
        """Return a project."""
        found: api.Project = api.understood(api.project_of, self._call("GET", f"/api/projects/{project_id}"))
        return found

    def set_model_version(self, project_id: int, version: str) -> None:
        """Say whose predictions order the tasks: by another version's, or none, Label Studio draws at random."""
        self._call("PATCH", f"/api/projects/{project_id}", json={"model_version": version})

    def set_webhook(self, project_id: int, url: str, headers: Mapping[str, str]) -> int:
        """Have Label Studio call `url` for each annotation; the one that calls it already is changed. Return its id."""
        hooks = self._call("GET", "/api/webhooks/", params={"project": project_id})
        fields = {
            "project": project_id,
            "url": url,
            "headers": dict(headers),
            "send_payload": True,
            "send_for_all_actions": False,
            "actions": list(_ACTIONS),
            "is_active": True,
        }
        for hook in hooks if isinstance(hooks, list) else ():
            if hook.get("url") == url and hook.get("project") == project_id:
                self._call("PATCH", f"/api/webhooks/{hook['id']}/", json=fields)
                return int(hook["id"])
        return int(api.understood(lambda made: made["id"], self._call("POST", "/api/webhooks/", json=fields)))

    def remove_webhook(self, webhook_id: int) -> None:
        """Have Label Studio call no more; harmless if it does not."""
        try:
            self._call("DELETE", f"/api/webhooks/{webhook_id}/")
        except NotFound:
            return

    def add_tasks(self, project_id: int, tasks: Sequence[api.Json]) -> None:
        """Put tasks into a project, with their predictions."""
        self._call("POST", f"/api/projects/{project_id}/import", json=list(tasks))

    def tasks_after(self, project_id: int, task_id: int) -> Iterator[Sequence[api.TheirTask]]:
        """Yield the tasks with a greater id, in its order."""
        while True:
            page = self._tasks(project_id, {"items": [_where("id", "greater", task_id)]}, order="id")
            if page:
                yield page
            if len(page) < PAGE:
                return
            task_id = page[-1].id

    def annotated_after(self, project_id: int, time: str) -> Iterator[Sequence[api.TheirTask]]:
        """Yield the tasks with annotations or skips that were changed after `time` ("": all), in its order."""
        # By keys, not by page numbers: a task that changes meanwhile would shift the others from page to page.
        while True:
            since = {"child_filter": _where("updated_at", "greater", time)} if time else {}
            kinds = ("total_annotations", "cancelled_annotations")
            items = [{**_where(kind, "greater", 0), **since} for kind in kinds]
            page = self._tasks(project_id, {"conjunction": "or", "items": items}, order="updated_at")
            if len(page) < PAGE:
                if page:
                    yield page
                return
            time = _whole_until(page)
            yield [task for task in page if task.updated_at <= time]

    def tasks_by_id(self, project_id: int, task_ids: Sequence[int]) -> Sequence[api.TheirTask]:
        """Return up to PAGE tasks, as far as they are there."""
        return self._tasks(project_id, {"items": [_where("id", "in_list", list(task_ids))]}, order="id")

    def delete_tasks(self, project_id: int, task_ids: Sequence[int]) -> None:
        """Take tasks out of a project."""
        chosen = {"all": False, "included": list(task_ids)}
        query = {"id": "delete_tasks", "project": project_id}
        self._call("POST", "/api/dm/actions", params=query, json={"selectedItems": chosen})

    def annotator(self, user_id: int) -> str:
        """Return the email address of a user, or their user name; a user who is gone is called by number."""
        with self._lock:
            known = self._names.get(user_id)
        if known is not None:
            return known
        try:
            user = self._call("GET", f"/api/users/{user_id}/")
        except NotFound:
            user = {}
        name = str(user.get("email") or user.get("username") or f"label-studio-user-{user_id}")
        with self._lock:
            self._names[user_id] = name
        return name

    def _tasks(self, project_id: int, filters: api.Json, *, order: str) -> Sequence[api.TheirTask]:
        query = {"filters": {"conjunction": "and", **filters}, "ordering": [f"tasks:{order}"]}
        parameters = {"project": project_id, "fields": "all", "include": _TASK_FIELDS, "page_size": PAGE}
        answer = self._call("GET", "/api/tasks", params={**parameters, "query": json.dumps(query)})
        tasks: list[api.TheirTask] = api.understood(lambda given: [api.task_of(one) for one in given["tasks"]], answer)
        return tasks

    def _pages(self, path: str, parameters: api.Json) -> Iterator[list[api.Project]]:
        number, left = 1, True
        while left:
            answer = self._call("GET", path, params={**parameters, "page_size": PAGE, "page": number})
            yield api.understood(lambda given: [api.project_of(one) for one in given["results"]], answer)
            left, number = bool(answer.get("next")), number + 1

    def _call(self, method: str, path: str, *, params: api.Json | None = None, json: Any = None) -> Any:
        answer = self._send(method, path, params=params, json=json)
        if answer.status_code == _UNAUTHORIZED and self._is_personal:
            self._access = ""  # ran out: it lasts for minutes
            answer = self._send(method, path, params=params, json=json)
        if answer.is_success:
            return _json_of(answer)
        raise self._error(answer, path)

    def _send(self, method: str, path: str, **content: Any) -> "httpx.Response":
        import httpx

        if self._stopping.is_set():
            raise Unavailable("the scheduler is stopping")
        try:
            return self._http.request(method, path, headers={"Authorization": self._authorization()}, **content)
        except httpx.TransportError as error:
            problem = str(error) or type(error).__name__
            raise Unavailable(f"Label Studio at {self._server.url} does not answer: {problem}") from error
        except httpx.InvalidURL as error:
            raise FailedPrecondition(f"Label Studio at {self._server.url}: {error}", field="server") from error

    def _authorization(self) -> str:
        if not self._is_personal:
            return f"Token {self._token}"
        if not self._access:
            import httpx

            try:
                answer = self._http.post("/api/token/refresh/", json={"refresh": self._token})
            except httpx.TransportError as error:
                raise Unavailable(f"Label Studio at {self._server.url} does not answer") from error
            if not answer.is_success:
                raise self._error(answer, "/api/token/refresh/")
            self._access = str(api.understood(lambda given: given["access"], _json_of(answer)))
        return f"Bearer {self._access}"

    def _error(self, answer: "httpx.Response", path: str) -> SealpoolError:
        status, where = answer.status_code, f"Label Studio at {self._server.url}"
        if status in (_UNAUTHORIZED, 403):
            return FailedPrecondition(f"{where} refuses the token", field="server")
        if status == 404:
            return NotFound("thing in Label Studio", path)
        if status >= 500 or status in _OTHERS_TROUBLE:
            return Unavailable(f"{where} is in trouble: it answers {status}")
        if answer.is_redirect:
            return FailedPrecondition(f"{where} sends us elsewhere: name its own address as url", field="server")
        return FailedPrecondition(f"{where} refuses {path}: {status} {_reason(answer)}", field="server")


def _http(server: LabelStudioServer, transport: "httpx.BaseTransport | None") -> "httpx.Client":
    try:
        import httpx
    except ImportError as error:
        raise FailedPrecondition("Label Studio needs: pip install 'sealpool[label-studio]'", field="server") from error
    import ssl

    verify = ssl.create_default_context(cafile=str(server.ca)) if server.ca is not None else server.verify
    return httpx.Client(base_url=server.url, timeout=server.timeout_s, verify=verify, transport=transport)


def _whole_until(page: Sequence[api.TheirTask]) -> str:
    """Return the latest time of a full page of which no task can be missing: others of its last may follow."""
    times = sorted({task.updated_at for task in page})
    return times[-2] if len(times) > 1 else times[-1]


def _where(column: str, operator: str, value: Any) -> dict[str, Any]:
    kind = "Datetime" if column == "updated_at" else "Number"
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _json_of(answer: "httpx.Response") -> Any:
    if not answer.content:
        return {}
    try:
        return answer.json()
    except ValueError as error:
        raise Unavailable("Label Studio answers something that is not JSON") from error


def _reason(answer: "httpx.Response") -> str:
    try:
        given = answer.json()
    except ValueError:
        return ""
    if not isinstance(given, Mapping):
        return ""
    return " ".join(str(given.get("validation_errors") or given.get("detail") or "").split())[:300]
