"""The middle rows of the campaign board: labels and tasks, quality, rounds."""

from deploy.grafana.layout import Section
from deploy.grafana.panels import About, Query, bars, lines, stacked
from deploy.grafana.queries import of_campaign

NO_CAMPAIGN = "no campaign yet"
NO_ROUND = "no round yet"
MEASURES = 'measure=~"accuracy|macro_f1|mean_average_precision"'


def labels_and_tasks() -> Section:
    """Return the row on what waits for people, and what they said."""
    items = of_campaign("class_items", by="campaign, class")
    oldest = of_campaign("oldest_open_task_timestamp_seconds")
    return Section(
        "Labels and tasks",
        [
            lines(
                About(
                    title="Labels and budget",
                    unit="short",
                    empty=NO_CAMPAIGN,
                    alert="BudgetNearlySpent",
                    does="Items labelled, and how many may be. Where the curve is flat, nobody labels: look at the "
                    "tasks beside it.",
                ),
                Query(of_campaign("labels"), "{{campaign}}"),
                Query(of_campaign("budget_labels"), "{{campaign}} budget"),
                steps=True,
            ),
            lines(
                About(
                    title="Tasks",
                    unit="short",
                    empty=NO_CAMPAIGN,
                    does="Tasks that wait for an annotator (open), and those somebody has taken (leased). Many open "
                    "ones want more annotators or a smaller batch; none at all, a round.",
                ),
                Query(of_campaign("tasks", by="campaign, state"), "{{campaign}} {{state}}"),
            ),
            lines(
                About(
                    title="Age of the oldest open task",
                    unit="s",
                    empty="no campaign yet",
                    alert="TasksWaiting",
                    does="Since the round that made it began; 0 without open tasks. Tasks from old models are worth "
                    "less than new ones: let rounds withdraw them (open_rounds), or call the annotators.",
                ),
                Query(f"time() - {oldest} or 0 * {of_campaign('labels')}", "{{campaign}}"),
            ),
            lines(
                About(
                    title="Labels in no model yet",
                    unit="short",
                    empty=NO_CAMPAIGN,
                    alert="LabelsWaiting",
                    does="Labels that arrived since the latest training. They wait for the campaign's round rule; "
                    "if it has none, for `sealpool campaign run`.",
                ),
                Query(of_campaign("waiting_labels"), "{{campaign}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Expired leases",
                    unit="short",
                    empty=NO_CAMPAIGN,
                    alert="LeasesExpiring",
                    does="Open tasks that somebody took and did not answer in time. A few are people at lunch; many "
                    "say that lease_seconds is too short or that a tool takes tasks and forgets them.",
                ),
                Query(of_campaign("expired_leases"), "{{campaign}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Class balance",
                    unit="percentunit",
                    empty="no labels yet",
                    does="Labelled items of each class, as a share (the first 50 classes). A class that stays thin "
                    "wants examples of its own: seed with them, or expand from that class alone.",
                ),
                Query(f"{items} / on (campaign) group_left () sum by (campaign) ({items})", "{{campaign}} {{class}}"),
                steps=True,
            ),
        ],
    )


def quality() -> Section:
    """Return the row on how good the models are."""
    return Section(
        "Quality",
        [
            lines(
                About(
                    title="Quality on held-out items",
                    unit="percentunit",
                    empty="no held-out items",
                    does="Of the latest model, by measure. Where it no longer rises, further labels buy little: see "
                    "the stopping criteria beside it.",
                ),
                Query(
                    of_campaign("model_quality_ratio", also=MEASURES, by="campaign, measure"),
                    "{{campaign}} {{measure}}",
                ),
                steps=True,
                highest=1,
            ),
            lines(
                About(
                    title="Stopping",
                    unit="percentunit",
                    empty="no stopping criterion",
                    does="On the stop set: agreement with the model before (kappa) rises to 1 and uncertainty falls "
                    "as a campaign has learnt what it can. 100 % of `recommended` says that a criterion was "
                    "met.",
                ),
                Query(of_campaign("survey_kappa_ratio"), "{{campaign}} kappa"),
                Query(of_campaign("survey_uncertainty_ratio"), "{{campaign}} uncertainty"),
                Query(of_campaign("survey_recommends_stop"), "{{campaign}} recommended"),
                steps=True,
                highest=1,
            ),
            lines(
                About(
                    title="Accuracy by active testing",
                    unit="percentunit",
                    empty="no test points",
                    does="Estimated from few test points chosen by the model's doubt: unbiased, and noisy with "
                    "under fifty of them, when it may leave 0 to 100 %.",
                ),
                Query(of_campaign("active_test_accuracy_ratio"), "{{campaign}}"),
                steps=True,
            ),
        ],
    )


def rounds() -> Section:
    """Return the row on how long rounds take."""
    phases = of_campaign("phase_seconds", also='phase!="total"', by="campaign, phase")
    running = of_campaign("running_round_started_timestamp_seconds")
    return Section(
        "Rounds",
        [
            stacked(
                About(
                    title="Time of the latest rounds by phase",
                    unit="s",
                    empty=NO_ROUND,
                    does="Where the time of rounds goes: the latest of each chosen campaign, added up. expand: the "
                    "index server; train, score, evaluate: the learner. What grows with the candidate pool is "
                    "score.",
                ),
                Query(f"sum by (phase) ({phases})", "{{phase}}"),
            ),
            lines(
                About(
                    title="The round that runs, since",
                    unit="s",
                    empty=NO_CAMPAIGN,
                    alert="RoundStuck",
                    does="How long the present round has been running; 0 between rounds. Longer than the ones "
                    "before it, it trains on much more, waits for a service, or waits for a language model: "
                    "the runbook tells them apart.",
                ),
                Query(f"time() - {running} or 0 * {of_campaign('labels')}", "{{campaign}}"),
            ),
            bars(
                About(
                    title="Rounds",
                    unit="short",
                    empty=NO_CAMPAIGN,
                    alert="RoundFailed",
                    does="Number of each campaign's latest round; 0 handed out the seed set.",
                ),
                Query(of_campaign("round_number"), "{{campaign}}"),
            ),
        ],
    )
