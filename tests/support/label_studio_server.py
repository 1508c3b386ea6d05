"""A real Label Studio on loopback, where one is installed."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import free_port

TOKEN = "0123456789abcdef0123456789abcdef01234567"
EMAIL = "admin@example.org"
START_TIMEOUT_S = 180.0
_ROOT = Path(__file__).parents[2]
_DATABASE = "label_studio.sqlite3"


def find_label_studio() -> str | None:
    """Return the executable: SEALPOOL_LABEL_STUDIO, the one in .label-studio, or one on PATH."""
    ours = _ROOT / ".label-studio" / "bin" / "label-studio"
    named = os.environ.get("SEALPOOL_LABEL_STUDIO")
    return named or (str(ours) if ours.is_file() else shutil.which("label-studio"))


class LabelStudioProcess:
    """Label Studio with SQLite in a folder of its own, always on the same port.

    Parameters
    ----------
    seed
        Where the database as it is after the first start is kept: its hundreds of migrations take most of a first
        start (16 s and more, against 4 s).
    """

    def __init__(self, executable: str, folder: Path, *, seed: Path) -> None:
        self._folder = folder
        self._seed = seed
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            *(executable, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self._port)),
            *("--username", EMAIL, "--password", "a-secret-of-tests", "--user-token", TOKEN),
            "--enable-legacy-api-token",
        ]
        self.url = f"http://127.0.0.1:{self._port}"
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Token {TOKEN}"}, timeout=30)
        if seed.is_file():
            shutil.copy(seed, folder / _DATABASE)

    def start(self) -> None:
        """Start and return once it answers."""
        environment = {
            **os.environ,
            "HOME": str(self._folder),
            "LABEL_STUDIO_BASE_DATA_DIR": str(self._folder),
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            # It calls us on loopback, which it refuses to otherwise.
            "SSRF_PROTECTION_ENABLED": "false",
            "ML_BLOCK_LOCAL_IP": "false",
        }
        with (self._folder / "label-studio.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait()
        if not self._seed.is_file():
            self._keep_seed()

    def stop(self) -> None:
        """Stop it and wait."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop it, and our connections to it."""
        self.stop()
        self.http.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """Ask it for something."""
        return self.http.get(path, params=parameters).raise_for_status().json()

    def post(self, path: str, body: Any) -> Any:
        """Tell it something."""
        return self.http.post(path, json=body).raise_for_status().json()

    def patch(self, path: str, body: Any) -> Any:
        """Change something in it."""
        return self.http.patch(path, json=body).raise_for_status().json()

    def tasks(self, project: int) -> dict[str, dict[str, Any]]:
        """Return a project's tasks by item, in the order they were put in."""
        answer = self.http.get("/api/tasks", params={"project": project, "fields": "all", "page_size": 1000})
        found = [] if answer.status_code == httpx.codes.NOT_FOUND else answer.raise_for_status().json()["tasks"]
        return {task["data"]["item_id"]: task for task in sorted(found, key=lambda task: int(task["id"]))}

    def annotate(self, task: int, *choices: str, **more: Any) -> int:
        """Annotate a task as somebody at the screen does; return the annotation's number."""
        body = {"result": [choice_result("label", *choices)] if choices else [], "was_cancelled": False, **more}
        return int(self.post(f"/api/tasks/{task}/annotations/", body)["id"])

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if self.http.get("/health").is_success:
                    return
            time.sleep(0.1)
        raise AssertionError((self._folder / "label-studio.log").read_text(errors="replace")[-4000:])

    def _keep_seed(self) -> None:
        unfinished = self._seed.with_name(f"{self._seed.name}.{os.getpid()}")
        with (
            contextlib.closing(sqlite3.connect(self._folder / _DATABASE)) as live,
            contextlib.closing(sqlite3.connect(unfinished)) as copy,
        ):
            live.backup(copy)
        unfinished.rename(self._seed)


def choice_result(control: str, *choices: str) -> dict[str, Any]:
    """Return what the form sends of one of its controls."""
    return {"from_name": control, "to_name": "item", "type": "choices", "value": {"choices": list(choices)}}


def comment_result(text: str) -> dict[str, Any]:
    """Return what the form sends of its comment."""
    return {"from_name": "comment", "to_name": "item", "type": "textarea", "value": {"text": [text]}}
