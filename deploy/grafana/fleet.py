"""The board of all three services: are they there, do they answer, how fast, and at which version."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.fleet_objectives import objectives
from deploy.grafana.layout import Section, arrange, choice
from deploy.grafana.panels import About, Limits, Query, lines, number, rows
from deploy.grafana.queries import SERVICES, a_second, of_instance, of_process, or_zero, process, quantile

NO_CALL = "no call yet"


def board() -> Dashboard:
    """Return the board."""
    return arrange(
        "sealpool / Fleet",
        "sealpool-fleet",
        "Every service at a glance: instances, calls, errors, latency, versions, memory, and what is left of the "
        "objectives.",
        variables=[
            choice("namespace", f"label_values({ANY_BUILD}, namespace)"),
            choice("instance", f'label_values({{__name__=~"{BUILD}", namespace=~"$namespace"}}, instance)'),
            choice("pool", 'label_values(sealpool_index_server_pool_items{namespace=~"$namespace"}, pool)'),
        ],
        sections=[_now(), objectives(), _calls(), _pools(), _processes()],
    )


BUILD = "sealpool_.+_build_info"
ANY_BUILD = f'{{__name__=~"{BUILD}"}}'


def _now() -> Section:
    counted = [
        number(
            About(
                title=f"Instances: {name}",
                width=4,
                unit="short",
                empty="0",
                alert="ServiceDown",
                limits=Limits(warning=1, bad=1, falling=True),
                does="That were scraped just now. None: look at the pod's state and its log.",
            ),
            Query(or_zero(f"count({of_instance(service, 'build_info')})")),
        )
        for service, name in SERVICES.items()
    ]
    return Section(
        "Now",
        [
            *counted,
            number(
                About(
                    title="Leading schedulers",
                    width=4,
                    unit="short",
                    empty="0",
                    alert="SchedulerLeaderless",
                    limits=Limits(warning=1, bad=1, falling=True),
                    does="Exactly one leads. With none labels are taken and no round runs; more than one for longer "
                    "than a scrape means two databases.",
                ),
                Query(or_zero(f"sum({of_instance('scheduler', 'is_leader')})")),
            ),
            number(
                About(
                    title="Failed pools",
                    width=4,
                    unit="short",
                    empty="0",
                    alert="IndexServerNotReady",
                    limits=Limits(warning=1, bad=1),
                    does="Pools that could not be read. `sealpool pool show` says why; the others are served.",
                ),
                Query(or_zero(f"sum({of_instance('index_server', 'pools', also=FAILED)})")),
            ),
            number(
                About(
                    title="Campaigns",
                    width=4,
                    unit="short",
                    empty="0",
                    does="That are not archived. The campaign board has each of them.",
                ),
                Query(or_zero(f"count(max by (campaign) ({of_instance('scheduler', 'campaign_info')}))")),
            ),
        ],
    )


FAILED = 'state="failed"'


def _each(expression_of: dict[str, str], legend: str) -> list[Query]:
    return [Query(expression_of[service], f"{name} {legend}".rstrip()) for service, name in SERVICES.items()]


def _calls() -> Section:
    def sums(counter: str, also: str = "") -> dict[str, str]:
        return {
            service: f"sum(rate({of_instance(service, counter, also=also)}[$__rate_interval]))" for service in SERVICES
        }

    by_code = {service: a_second(service, "requests_total", by="code", also=NOT_OK) for service in SERVICES}
    slowest = {service: quantile(0.99, service, "request_seconds") for service in SERVICES}
    return Section(
        "Calls",
        [
            lines(
                About(
                    title="Calls a second",
                    unit="reqps",
                    empty=NO_CALL,
                    does="By service. The scheduler's bring the learner's, and these the index server's: a service "
                    "with calls whose successor has none cannot reach it.",
                ),
                *_each(sums("requests_total"), ""),
            ),
            lines(
                About(
                    title="Calls that ended otherwise than OK",
                    unit="reqps",
                    empty="none",
                    alert="SchedulerErrors",
                    does="By service and gRPC status; the services' own boards have the methods.",
                ),
                *_each(by_code, "{{code}}"),
            ),
            lines(
                About(
                    title="Slowest 1 % of calls take longer than",
                    unit="s",
                    empty=NO_CALL,
                    alert="SchedulerSlow",
                    does="By service (99th percentile), rounds and trainings included: read it beside the services' "
                    "boards, which have it by method.",
                ),
                *_each(slowest, ""),
            ),
            lines(
                About(
                    title="Calls being served",
                    unit="short",
                    empty=NO_CALL,
                    does="By service. What only rises hangs; a restart of the service behind often frees it.",
                ),
                *_each({s: f"sum({of_instance(s, 'requests_in_progress')})" for s in SERVICES}, ""),
            ),
            lines(
                About(
                    title="Refused before any work",
                    unit="reqps",
                    empty="none",
                    alert="CallsRefused",
                    does="By service and reason. Limits say concurrency or client; tokens say unauthenticated, role "
                    "or pool.",
                ),
                *_each({s: a_second(s, "refusals_total", by="reason") for s in SERVICES}, "{{reason}}"),
            ),
            lines(
                About(
                    title="Leader",
                    unit="short",
                    empty="no scheduler",
                    alert="SchedulerTwoLeaders",
                    does="1 for the scheduler that leads. Two curves that change places are a take-over, within 10 s.",
                ),
                Query(of_instance("scheduler", "is_leader"), "{{instance}}"),
                steps=True,
                highest=1,
            ),
        ],
    )


NOT_OK = 'code!="OK"'


def _pools() -> Section:
    def of_pools(metric: str) -> str:
        return of_instance("index_server", metric, also=POOL)

    return Section(
        "Pools",
        [
            lines(
                About(title="Items", unit="short", empty="no pool yet", does="By pool."),
                Query(f"max by (pool) ({of_pools('pool_items')})", "{{pool}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Largest candidate pool",
                    unit="percentunit",
                    empty="no campaign yet",
                    limits=Limits(warning=0.3, bad=0.6),
                    does="By pool: the largest share of it that is candidate for a campaign.",
                ),
                Query(f"max by (pool) ({of_pools('candidate_pool_share_ratio')})", "{{pool}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Lowest recall",
                    unit="percentunit",
                    empty="no pool yet",
                    alert="IndexRecallBelowFloor",
                    does="By pool, as measured after its index was built.",
                ),
                Query(f"min by (pool) ({of_pools('index_recall_ratio')})", "{{pool}}"),
                steps=True,
                highest=1,
            ),
        ],
    )


POOL = 'pool=~"$pool"'


def _processes() -> Section:
    used = 'kubelet_volume_stats_used_bytes{namespace=~"$namespace"}'
    capacity = 'kubelet_volume_stats_capacity_bytes{namespace=~"$namespace"}'
    memory = {s: of_process(process("resident_memory_bytes"), s) for s in SERVICES}
    started = {s: of_process(f"(time() - {process('start_time_seconds')})", s) for s in SERVICES}
    return Section(
        "Processes",
        [
            lines(
                About(
                    title="Memory",
                    unit="bytes",
                    empty="not told",
                    alert="ContainerMemoryHigh",
                    does="Resident memory by process. The index server's is its vectors, the learner's its caches.",
                ),
                *_each(memory, "{{instance}}"),
            ),
            lines(
                About(
                    title="Since their start",
                    unit="s",
                    empty="not told",
                    alert="InstanceDown",
                    does="A curve that keeps falling to 0 is a process that is killed again and again: look for "
                    "OOMKilled.",
                ),
                *_each(started, "{{instance}}"),
            ),
            lines(
                About(
                    title="Volumes",
                    unit="percentunit",
                    empty="no kubelet tells",
                    alert="VolumeFilling",
                    limits=Limits(warning=0.85, bad=0.95),
                    does="In use, of the namespace's volumes in Kubernetes: checkpoints, pools, a PostgreSQL. "
                    "Enlarge the claim before it is full; the learner keeps fewer checkpoints with "
                    "keep_checkpoints.",
                ),
                Query(f"max by (persistentvolumeclaim) ({used} / {capacity})", "{{persistentvolumeclaim}}"),
                highest=1,
            ),
            rows(
                About(
                    title="Versions",
                    unit="short",
                    width=24,
                    empty="not told",
                    does="Which version runs where. Several at once belong to a rolling restart and not to the day "
                    "after.",
                ),
                *(Query(f"count by (version, namespace, instance) ({of_instance(s, 'build_info')})") for s in SERVICES),
            ),
        ],
    )
