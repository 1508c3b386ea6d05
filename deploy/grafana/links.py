"""Where the pages lie that boards and alerts lead to."""

DOCUMENTATION = "https://sealpool.example.org/docs"
"""The one place to change where your copy of docs/ is served from."""


def runbook(alert: str) -> str:
    """Return the address of an alert's page: docs/runbooks/<alert>.md."""
    return f"{DOCUMENTATION}/runbooks/{alert}.md"
