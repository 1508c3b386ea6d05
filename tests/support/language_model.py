"""A language model on loopback: speaks the chat completions protocol over HTTP, and misbehaves on command."""

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

KEY = "sk-a-key-that-nobody-may-see"

Answerer = Callable[[Mapping[str, Any]], str]
"""From a request's body to the content of the answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """What happens to one request instead of an answer.

    Parameters
    ----------
    status
        Of a refusal, with `code` and `headers`.
    cut
        The answer breaks off in the middle.
    hang_up
        The connection is closed before any answer.
    body
        Sent as it is, with status 200.
    content
        What the model says.
    silent
        No answer until the server closes.
    at_once
        It does not wait for the gate.
    """

    status: int = 0
    code: str = ""
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    hang_up: bool = False
    body: bytes | None = None
    content: str | None = None
    silent: bool = False
    at_once: bool = False


def says(*classes: str, confidence: float = 0.9, cannot_tell: bool = False) -> str:
    """Return a valid answer."""
    return json.dumps({"classes": list(classes), "confidence": confidence, "cannot_tell": cannot_tell})


class LanguageModelServer:
    """Serves until it is closed. `requests` has the bodies of all that came, in order, `headers` the headers."""

    def __init__(self, answer: Answerer, *, key: str = KEY, usage: tuple[int, int] | None = (100, 20)) -> None:
        self.answer = answer
        self.key = key
        self.usage = usage
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.most_at_once = 0
        self.gate = threading.Event()
        """Answers wait for it."""
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        """Released once for each request that came."""
        self.answered = threading.Semaphore(0)
        """Released once for each answer that went out."""
        self._troubles: deque[Trouble] = deque()
        self._always: Trouble | None = None
        self._at_once = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        """The base_url of an endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def next(self, *troubles: Trouble) -> None:
        """Let the next requests end in these, one each."""
        self._troubles.extend(troubles)

    def always(self, trouble: Trouble | None) -> None:
        """Let every request end in this from now on."""
        self._always = trouble

    def close(self) -> None:
        self._closing.set()
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self, path: str, key: str, body: dict[str, Any]) -> Trouble:
        """Note a request and say what becomes of it."""
        with self._lock:
            self.requests.append(body)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            trouble = self._troubles.popleft() if self._troubles else self._always
        self.arrived.release()
        if trouble is None or not trouble.at_once:
            self.gate.wait(20)
        if path != "/v1/chat/completions":
            return Trouble(status=404, message="no such path")
        if key != f"Bearer {self.key}":
            return Trouble(status=401, code="invalid_api_key", message=f"Incorrect API key provided: {key}")
        return trouble or Trouble(content=self.answer(body))

    def leave(self) -> None:
        """Note that a request was answered."""
        with self._lock:
            self._at_once -= 1

    def wait_until_closing(self) -> None:
        """Keep silent."""
        self._closing.wait(20)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.headers.append(dict(self.headers))
                trouble = server.take(self.path, self.headers.get("Authorization", ""), body)
                self.close_connection = True
                # Before the answer goes out: the client may send its next request as soon as it has it.
                server.leave()
                try:
                    self._answer(trouble, body)
                except (BrokenPipeError, ConnectionResetError):
                    return
                finally:
                    server.answered.release()

            def _answer(self, trouble: Trouble, body: dict[str, Any]) -> None:
                if trouble.silent:
                    server.wait_until_closing()
                elif trouble.status:
                    error = {"message": trouble.message, "code": trouble.code or None, "type": "error"}
                    self._send(trouble.status, json.dumps({"error": error}).encode(), headers=trouble.headers)
                elif not trouble.hang_up:
                    content = trouble.content if trouble.content is not None else server.answer(body)
                    told = trouble.body if trouble.body is not None else _completion(body, content, server.usage)
                    self._send(200, told, cut=trouble.cut)

            def _send(self, status: int, body: bytes, *, headers: Mapping[str, str] = {}, cut: bool = False) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if cut else body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's names
                """Say nothing."""

        return Handler


def _completion(body: Mapping[str, Any], content: str, usage: tuple[int, int] | None) -> bytes:
    message = {"role": "assistant", "content": content}
    told: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    if usage is not None:
        told["usage"] = {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        }
    return json.dumps(told).encode()
