"""Grafana boards, built from Python into dashboards/*.json by `python -m deploy.generate`."""
