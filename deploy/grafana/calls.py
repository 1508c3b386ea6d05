"""Rows that each service's board has: its calls, and its processes."""

from deploy.grafana.layout import Section
from deploy.grafana.panels import About, Limits, Query, lines
from deploy.grafana.queries import a_second, of_instance, of_process, process, quantile

NO_CALL = "no call yet"

_P99_ALERT = {"index_server": "IndexServerSlow", "learner": "LearnerSlow", "scheduler": "SchedulerSlow"}
_ERROR_ALERT = {"index_server": "IndexServerErrors", "learner": "LearnerErrors", "scheduler": "SchedulerErrors"}


def calls(service: str) -> Section:
    """Return the row on how many calls a service has, how they end and how long they take."""
    return Section(
        "Calls",
        [
            lines(
                About(title="Calls a second", unit="reqps", empty=NO_CALL, does="That ended, by method."),
                Query(a_second(service, "requests_total", by="method"), "{{method}}"),
            ),
            lines(
                About(
                    title="Calls that ended otherwise than OK",
                    unit="reqps",
                    empty="none",
                    alert=_ERROR_ALERT[service],
                    does="By method and gRPC status. INVALID_ARGUMENT, NOT_FOUND and FAILED_PRECONDITION are the "
                    "caller's; INTERNAL is ours, and the log has it under its fault id.",
                ),
                Query(a_second(service, "requests_total", by="method, code", also='code!="OK"'), "{{method}} {{code}}"),
            ),
            lines(
                About(
                    title="Slowest 1 % of calls take longer than",
                    unit="s",
                    empty=NO_CALL,
                    alert=_P99_ALERT[service],
                    does="By method (99th percentile). Uploads, trainings and rounds are long by nature; what "
                    "answers people should stay well under a second.",
                ),
                Query(quantile(0.99, service, "request_seconds", by="method"), "{{method}}"),
            ),
            lines(
                About(
                    title="Half of the calls take longer than",
                    unit="s",
                    empty=NO_CALL,
                    does="By method (median). Where it rises with the load, the service is short of cores.",
                ),
                Query(quantile(0.5, service, "request_seconds", by="method"), "{{method}}"),
            ),
            lines(
                About(
                    title="Calls being served",
                    unit="short",
                    empty=NO_CALL,
                    does="By method. Near max_concurrent_calls further ones are refused.",
                ),
                Query(f"sum by (method) ({of_instance(service, 'requests_in_progress')})", "{{method}}"),
            ),
            lines(
                About(
                    title="Refused before any work",
                    unit="reqps",
                    empty="none",
                    alert="CallsRefused",
                    does="By reason. concurrency and client: raise the limits or add an instance; unauthenticated, "
                    "role and pool: somebody's token is wrong.",
                ),
                Query(a_second(service, "refusals_total", by="reason"), "{{reason}}"),
            ),
        ],
    )


def processes(service: str) -> Section:
    """Return the row on what a service's processes take."""
    return Section(
        "Process",
        [
            lines(
                About(
                    title="Memory",
                    unit="bytes",
                    empty="not told",
                    alert="ContainerMemoryHigh",
                    does="Resident memory by instance. Growth without end, in hours without uploads and rounds, is "
                    "a leak: restart the service and report it.",
                ),
                Query(of_process(process("resident_memory_bytes"), service), "{{instance}}"),
            ),
            lines(
                About(
                    title="Cores in use",
                    unit="short",
                    empty="not told",
                    does="CPU seconds a second, by instance. At the container's limit everything waits.",
                ),
                Query(of_process(f"rate({process('cpu_seconds_total')}[$__rate_interval])", service), "{{instance}}"),
            ),
            lines(
                About(
                    title="Open files",
                    unit="percentunit",
                    empty="not told",
                    limits=Limits(warning=0.7, bad=0.9),
                    does="As a share of what the process may open. Each connection is one; at 100 % new ones fail: "
                    "raise the limit (ulimit -n).",
                ),
                Query(of_process(f"{process('open_fds')} / {process('max_fds')}", service), "{{instance}}"),
            ),
        ],
    )
