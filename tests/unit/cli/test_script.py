"""The script as a process: help, version, what is missing, signals."""

import os
import subprocess
import sys

import pytest

COMMANDS = [
    "", "up", "demo", "pool", "pool create", "pool ingest", "pool show", "pool list", "pool delete", "campaign",
    "campaign create", "campaign run", "campaign show", "campaign list", "campaign watch", "campaign pause",
    "campaign resume", "campaign archive", "campaign export", "campaign label-rest", "export", "report",
    "tasks", "tasks next", "labels", "labels submit",
    "token", "token create", "token list", "token revoke",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_text(cli, command):
    outcome = cli(*command.split(), "--help")
    assert outcome.code == 0
    assert f"Usage: sealpool {command}".strip() in outcome.out


def test_the_version_is_said(process):
    answer = process("--version")
    assert answer.returncode == 0
    assert answer.stdout.startswith("sealpool ")


def test_help_loads_nothing_heavy():
    heavy = ["pyarrow", "sklearn", "matplotlib", "jinja2", "torch", "faiss", "pydantic"]
    script = (
        "import sys; from sealpool.cli.app import run; run(['--help']); "
        f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert answer.stderr.strip() == ""


@pytest.mark.parametrize("service", ["index-server", "learner", "scheduler"])
def test_a_service_shows_its_own_flags(process, service):
    answer = process(service, "--help")
    assert answer.returncode == 0
    assert "--max-concurrent-calls" in answer.stdout


def test_without_typer_the_script_says_what_to_install(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('No module named typer', name='typer')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    answer = subprocess.run(
        [sys.executable, "-m", "sealpool.cli.main", "pool", "list"],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode == 1
    assert answer.stderr == 'error: the command line needs typer: pip install "sealpool[cli]"\n'


def test_a_reader_that_leaves_is_no_error_worth_a_traceback():
    command = f"{sys.executable} -m sealpool.cli.main campaign create --help | head -1"
    answer = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert answer.stderr == ""
