"""The rule files as the Prometheus operator reads them: one PrometheusRule a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).parent / "rules"
_NOTE = "# Written by `make deploy-files` from deploy/prometheus/rules; not edited by hand.\n"


def pages() -> Mapping[str, str]:
    """Return the text of the objects by their path below deploy/."""
    objects = [_object(path) for path in sorted(RULES.glob("*.yaml"))]
    text = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
    return {"prometheus/prometheus-rules.yaml": _NOTE + text}


def _object(path: Path) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"sealpool-{path.stem}"},
        "spec": yaml.safe_load(path.read_text(encoding="utf-8")),
    }


class _Plain(yaml.SafeDumper):
    """Writes what stands in a rule file twice by an anchor twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Return that no anchor is wanted."""
        return True
