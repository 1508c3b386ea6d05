"""The board of the learner: trainings, scoring, caches and GPU memory."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.calls import calls, processes
from deploy.grafana.layout import Section, arrange, choice
from deploy.grafana.panels import About, Limits, Query, lines, number, stacked
from deploy.grafana.queries import a_second, of_instance, or_zero, quantile

SERVICE = "learner"
NO_PHASE = "nothing trained yet"
CAMPAIGN = 'campaign=~"$campaign"'


def board() -> Dashboard:
    """Return the board."""
    return arrange(
        "sealpool / Learner",
        "sealpool-learner",
        "Trainings and their queue, the time of each phase, the caches of vectors, and GPU memory.",
        variables=[
            choice("namespace", "label_values(sealpool_learner_build_info, namespace)"),
            choice("instance", 'label_values(sealpool_learner_build_info{namespace=~"$namespace"}, instance)'),
            choice("campaign", 'label_values(sealpool_learner_cached_candidates{namespace=~"$namespace"}, campaign)'),
        ],
        sections=[_now(), calls(SERVICE), _phases(), _queue(), _memory(), processes(SERVICE)],
    )


def _now() -> Section:
    trained = a_second(SERVICE, "phase_seconds_count", by="phase", also='phase="train"')
    return Section(
        "Now",
        [
            number(
                About(
                    title="Trainings that wait",
                    width=6,
                    unit="short",
                    empty="0",
                    limits=Limits(warning=1, bad=16),
                    alert="LearnerQueueLong",
                    does="For their turn, over the chosen instances. Where some wait for most of the time, add a "
                    "learner, or raise max_trainings where memory allows.",
                ),
                Query(or_zero(f"sum({of_instance(SERVICE, 'waiting_trainings')})")),
            ),
            number(
                About(
                    title="Trainings a minute",
                    width=6,
                    unit="short",
                    empty="0",
                    does="That ended, over the chosen instances: about one for each round.",
                ),
                Query(or_zero(f"60 * sum({trained})")),
            ),
            number(
                About(
                    title="Candidates in memory",
                    width=6,
                    unit="short",
                    empty="0",
                    does="Of the chosen campaigns. Those that are not in use for idle_campaign_s are let go, and "
                    "read again by the next round.",
                ),
                Query(or_zero(f"sum({of_instance(SERVICE, 'cached_candidates', also=CAMPAIGN)})")),
            ),
            number(
                About(
                    title="Memory of caches",
                    width=6,
                    unit="bytes",
                    empty="0 B",
                    does="Vectors of candidates and of labelled items. candidate_cache_bytes and vector_cache_bytes "
                    "bound it; past them rounds read vectors from the index server again.",
                ),
                Query(or_zero(f"sum({of_instance(SERVICE, 'cache_bytes')})")),
            ),
        ],
    )


def _phases() -> Section:
    return Section(
        "Phases",
        [
            lines(
                About(
                    title="Slowest 1 % of phases take longer than",
                    unit="s",
                    empty=NO_PHASE,
                    does="By phase (99th percentile). train grows with the labels, score with the candidates, "
                    "expand with the batch and k; embed with the texts.",
                ),
                Query(quantile(0.99, SERVICE, "phase_seconds", by="phase"), "{{phase}}"),
            ),
            lines(
                About(
                    title="Half of the phases take longer than",
                    unit="s",
                    empty=NO_PHASE,
                    does="By phase (median). Where expand is most of a round, look at the index server's board.",
                ),
                Query(quantile(0.5, SERVICE, "phase_seconds", by="phase"), "{{phase}}"),
            ),
            stacked(
                About(
                    title="What the time goes to",
                    unit="short",
                    empty=NO_PHASE,
                    does="Seconds a second in each phase. Near the number of trainings at once (max_trainings) the "
                    "learner is full.",
                ),
                Query(a_second(SERVICE, "phase_seconds_sum", by="phase"), "{{phase}}"),
            ),
        ],
    )


def _queue() -> Section:
    return Section(
        "Queue",
        [
            lines(
                About(
                    title="Trainings",
                    unit="short",
                    empty="0",
                    width=12,
                    alert="LearnerQueueLong",
                    does="Running and waiting, by instance. The autoscaler goes by their sum; waiting ones on one "
                    "instance beside idle others are campaigns that keep to their learner.",
                ),
                Query(of_instance(SERVICE, "running_trainings"), "{{instance}} running"),
                Query(of_instance(SERVICE, "waiting_trainings"), "{{instance}} waiting"),
                steps=True,
            ),
            lines(
                About(
                    title="Phases that ended a second",
                    unit="ops",
                    empty=NO_PHASE,
                    width=12,
                    does="By phase. evaluate without train says that somebody measures old models.",
                ),
                Query(a_second(SERVICE, "phase_seconds_count", by="phase"), "{{phase}}"),
            ),
        ],
    )


def _memory() -> Section:
    return Section(
        "Caches and GPU",
        [
            lines(
                About(
                    title="Candidates in memory by campaign",
                    unit="short",
                    empty="no campaign yet",
                    does="They follow the campaigns' candidate pools. A curve that falls to 0 and comes back was "
                    "dropped for room: raise candidate_cache_bytes.",
                ),
                Query(
                    f"sum by (campaign) ({of_instance(SERVICE, 'cached_candidates', also=CAMPAIGN)})", "{{campaign}}"
                ),
                steps=True,
            ),
            lines(
                About(
                    title="Memory by cache",
                    unit="bytes",
                    empty="no round yet",
                    does="By instance. Flat at its limit, a cache is too small.",
                ),
                Query(of_instance(SERVICE, "cache_bytes"), "{{instance}} {{cache}}"),
                steps=True,
            ),
            lines(
                About(
                    title="GPU memory",
                    unit="bytes",
                    empty="no GPU",
                    alert="GpuMemoryHigh",
                    does="What torch holds, and what the device has. When it runs out, trainings wait: lower "
                    "device_candidate_bytes or batch_rows.",
                ),
                Query(of_instance(SERVICE, "gpu_memory_bytes"), "{{instance}} {{device}}"),
                Query(of_instance(SERVICE, "gpu_memory_total_bytes"), "{{instance}} {{device}} has"),
            ),
        ],
    )
