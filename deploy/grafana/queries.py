"""Parts of PromQL expressions that several boards use."""

SERVICES = {"index_server": "index server", "learner": "learner", "scheduler": "scheduler"}


def of_campaign(metric: str, *, also: str = "", by: str = "campaign") -> str:
    """Return a gauge of the scheduler for the chosen campaigns.

    Every scheduler reads it from the one database, so the largest is taken and nothing is summed.
    """
    return f"max by ({by}) (sealpool_scheduler_{metric}{_chosen('namespace', 'campaign', also=also)})"


def of_candidates(metric: str, *, by: str = "pool, campaign") -> str:
    """Return a metric of the index server's candidate pools, of the chosen pools and campaigns."""
    return f"max by ({by}) (sealpool_index_server_{metric}{_chosen('namespace', 'pool', 'campaign')})"


def of_pool(metric: str, *, by: str = "pool") -> str:
    """Return a metric of the index server's pools, of those chosen."""
    return f"max by ({by}) (sealpool_index_server_{metric}{_chosen('namespace', 'instance', 'pool')})"


def of_instance(service: str, metric: str, *, also: str = "") -> str:
    """Return the selector of a metric of a service, at the chosen instances."""
    return f"sealpool_{service}_{metric}{_chosen('namespace', 'instance', also=also)}"


def a_second(service: str, counter: str, *, by: str, also: str = "") -> str:
    """Return how often something happened a second."""
    return f"sum by ({by}) (rate({of_instance(service, counter, also=also)}[$__rate_interval]))"


def quantile(share: float, service: str, histogram: str, *, by: str = "") -> str:
    """Return a quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {a_second(service, f'{histogram}_bucket', by=labels)})"


def mean(service: str, histogram: str) -> str:
    """Return the mean of what a histogram counted."""
    total = f"rate({of_instance(service, f'{histogram}_sum')}[$__rate_interval])"
    count = f"rate({of_instance(service, f'{histogram}_count')}[$__rate_interval])"
    return f"sum({total}) / sum({count})"


def process(metric: str) -> str:
    """Return the selector of a metric of processes, at the chosen instances."""
    return f"process_{metric}{_chosen('namespace', 'instance')}"


def of_process(expression: str, service: str) -> str:
    """Return an expression on metrics of processes for those of one service.

    These metrics have no service in their names, and how jobs are called is the installation's affair.
    """
    return f"{expression} * on (namespace, instance) {of_instance(service, 'build_info')}"


def or_zero(expression: str) -> str:
    """Return the expression's value, 0 while it has none: on a fresh system, say."""
    return f"{expression} or vector(0)"


def _chosen(*labels: str, also: str = "") -> str:
    matchers = [f'{label}=~"${label}"' for label in labels]
    return "{" + ", ".join([*matchers, *([also] if also else [])]) + "}"
