"""A learner starts without what only some of its calls need."""

import socket
import subprocess
import sys
from pathlib import Path


def test_nothing_heavy_is_loaded_that_only_some_calls_need() -> None:
    script = "import learner.app, sys; print(*{'transformers', 'sklearn', 'scipy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == ""


def test_a_learner_whose_port_is_taken_ends_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taker:
        taken = f"127.0.0.1:{taker.getsockname()[1]}"
        command = [sys.executable, "-m", "learner", "--data-dir", str(tmp_path), "--listen=127.0.0.1:0"]
        ended = subprocess.run([*command, f"--metrics-listen={taken}"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    (line,) = (line for line in ended.stderr.splitlines() if not line.startswith("{"))
    assert line.startswith(f"cannot listen on metrics_listen={taken}: ")
