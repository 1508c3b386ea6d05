"""The secrets that pods are given, and what is in them."""

from tests.deploy.manifests import SERVICES

SECRETS = {
    "sealpool-tokens": {"tokens.json", "learner.token", "scheduler.token", "embed.token", "snapshots.token"},
    "sealpool-database": {"url"},
    "sealpool-milvus": {"token"},
    **{f"{name}-tls": {"tls.crt", "tls.key", "ca.crt"} for name in (*SERVICES, "jobs")},
}
"""Those that a user, or cert-manager, makes: deploy/kubernetes/README.md says how."""
