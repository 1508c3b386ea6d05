"""The lower rows of the campaign board: who labels, what that costs, and what streams bring."""

from deploy.grafana.layout import Section
from deploy.grafana.panels import About, Limits, Query, lines
from deploy.grafana.queries import of_campaign

NO_MODEL = "no language model asked"
NO_STREAM = "no stream"


def oracles() -> Section:
    """Return the row on people and language models."""
    spent = of_campaign("llm_spent", by="campaign, unit")
    budget = of_campaign("llm_budget", by="campaign, unit")
    return Section(
        "Oracles: agreement and cost",
        [
            lines(
                About(
                    title="Agreement of annotators",
                    unit="short",
                    empty="one annotator an item",
                    limits=Limits(warning=0.67, bad=0.4, falling=True),
                    does="Krippendorff's alpha: 1 is agreement, 0 is chance. Below two thirds the classes mean "
                    "different things to different people: mend the instructions before more is labelled.",
                ),
                Query(of_campaign("annotator_agreement_ratio"), "{{campaign}}"),
                steps=True,
                highest=1,
            ),
            lines(
                About(
                    title="Error rate of the language model",
                    unit="percentunit",
                    empty="nothing audited",
                    does="Share of the audited items that people label otherwise. `sealpool campaign oracles` has "
                    "the interval; under fifty audited items it is wide.",
                ),
                Query(of_campaign("llm_error_rate_ratio"), "{{campaign}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Audited items",
                    unit="short",
                    empty="nothing audited",
                    does="Items that people labelled beside the language model. Raise audit_share where the error "
                    "rate has to be known well.",
                ),
                Query(of_campaign("llm_audited_items"), "{{campaign}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Money spent on the language model",
                    unit="short",
                    empty=NO_MODEL,
                    does="In the currency of the endpoint's prices, and how much the campaign may spend (max_cost). "
                    "It is paused there.",
                ),
                Query(of_campaign("llm_spent", also='unit="money"'), "{{campaign}}"),
                Query(of_campaign("llm_budget", also='unit="money"'), "{{campaign}} limit"),
                steps=True,
            ),
            lines(
                About(
                    title="Of what the language model may cost",
                    unit="percentunit",
                    empty="no limit set",
                    alert="LanguageModelBudgetNearlySpent",
                    limits=Limits(warning=0.9, bad=1),
                    does="Spent as a share of max_cost and max_tokens. At 100 % the campaign is paused until one is "
                    "raised.",
                ),
                Query(f"{spent} / {budget}", "{{campaign}} {{unit}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Requests to language models",
                    unit="reqps",
                    empty=NO_MODEL,
                    alert="LanguageModelErrors",
                    does="By endpoint and outcome, over all campaigns. Anything but `answered` is sent again, or "
                    "left to people; `limited` asks for a lower max_concurrency.",
                ),
                Query(
                    "sum by (endpoint, outcome) "
                    '(rate(sealpool_scheduler_llm_requests_total{namespace=~"$namespace"}[$__rate_interval]))',
                    "{{endpoint}} {{outcome}}",
                ),
            ),
        ],
    )


def streams() -> Section:
    """Return the row on stream-based selection."""
    return Section(
        "Streams",
        [
            lines(
                About(
                    title="Items of the stream",
                    unit="short",
                    empty=NO_STREAM,
                    does="Decided of, and of these sent to the oracle.",
                ),
                Query(of_campaign("stream_seen_items"), "{{campaign}} seen"),
                Query(of_campaign("stream_asked_items"), "{{campaign}} asked"),
            ),
            lines(
                About(
                    title="Threshold and uncertainty",
                    unit="percentunit",
                    empty=NO_STREAM,
                    does="Items more uncertain than the threshold are asked about. Uncertainty that rises to a new "
                    "level means that the stream has changed: run a round.",
                ),
                Query(of_campaign("stream_threshold_ratio"), "{{campaign}} threshold"),
                Query(of_campaign("stream_uncertainty_ratio"), "{{campaign}} uncertainty"),
                Query(of_campaign("stream_asked_ratio"), "{{campaign}} asked lately"),
            ),
            lines(
                About(
                    title="Drifts found",
                    unit="short",
                    empty=NO_STREAM,
                    does="Changes of the mean uncertainty since the stream began. Each wants new labels, and a round.",
                ),
                Query(of_campaign("stream_drifts"), "{{campaign}}"),
                steps=True,
            ),
        ],
    )
