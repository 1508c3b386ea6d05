"""A learner starts without what only some of its calls need."""

import subprocess
import sys


def test_nothing_heavy_is_loaded_that_only_some_calls_need() -> None:
    script = "import learner.app, sys; print(*{'transformers', 'sklearn', 'scipy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == ""
