"""The board of campaigns: how candidate pools grow, what was labelled, and what it brought."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.campaign_labels import labels_and_tasks, quality, rounds
from deploy.grafana.campaign_oracles import oracles, streams
from deploy.grafana.layout import Section, arrange, choice
from deploy.grafana.panels import About, Limits, Query, lines, number
from deploy.grafana.queries import of_campaign, of_candidates, or_zero

NO_CAMPAIGN = "no campaign yet"
NO_ROUND = "no round yet"


def board() -> Dashboard:
    """Return the board."""
    campaigns = 'label_values(sealpool_scheduler_campaign_info{namespace=~"$namespace", pool=~"$pool"}, campaign)'
    return arrange(
        "sealpool / Campaign",
        "sealpool-campaign",
        "How a campaign's candidate pool grows, what was labelled, how good the model is, and what labels cost.",
        variables=[
            choice("namespace", "label_values(sealpool_scheduler_build_info, namespace)"),
            choice("pool", 'label_values(sealpool_scheduler_campaign_info{namespace=~"$namespace"}, pool)'),
            choice("campaign", campaigns, all_value=None),
        ],
        sections=[_now(), _candidate_pool(), labels_and_tasks(), quality(), rounds(), oracles(), streams()],
    )


def _now() -> Section:
    labels, budget = of_campaign("labels"), of_campaign("budget_labels")
    return Section(
        "Now",
        [
            number(
                About(
                    title="Campaigns",
                    width=4,
                    unit="short",
                    empty=NO_CAMPAIGN,
                    does="The chosen campaigns and the state of each. A paused one runs no round: `sealpool "
                    "campaign show` says why, and `sealpool campaign resume` lets it go on.",
                ),
                Query(of_campaign("campaign_state", by="campaign, state"), "{{campaign}}: {{state}}"),
                name_only=True,
            ),
            number(
                About(
                    title="Candidates in all",
                    width=4,
                    unit="short",
                    empty="0",
                    does="Items that the next round may pick from, over the chosen campaigns. A round's cost "
                    "follows this number and not the pool's size.",
                ),
                Query(or_zero(f"sum({of_candidates('candidate_pool_items')})")),
            ),
            number(
                About(
                    title="Largest share of a pool",
                    width=4,
                    unit="percentunit",
                    empty="0 %",
                    limits=Limits(warning=0.3, bad=0.6),
                    does="Candidates as a share of the pool's items, of the campaign with the largest. Beyond a "
                    "third little is saved against scanning the pool: lower k, or expand from the rare class "
                    "alone.",
                ),
                Query(or_zero(f"max({of_candidates('candidate_pool_share_ratio')})")),
            ),
            number(
                About(
                    title="Labels",
                    width=4,
                    unit="short",
                    empty="0",
                    does="Items labelled, over the chosen campaigns. Corrections are not counted.",
                ),
                Query(or_zero(f"sum({labels})")),
            ),
            number(
                About(
                    title="Budget spent",
                    width=4,
                    unit="percentunit",
                    empty="0 %",
                    alert="BudgetNearlySpent",
                    limits=Limits(warning=0.9, bad=1),
                    does="Labels, those for evaluation included, as a share of the budget, of the campaign that is "
                    "nearest to its end. At 100 % a campaign completes; `sealpool "
                    "campaign apply` raises the budget.",
                ),
                Query(or_zero(f"max(({labels} + {of_campaign('evaluation_labels')}) / {budget})")),
            ),
            number(
                About(
                    title="Accuracy",
                    width=4,
                    unit="percentunit",
                    empty="no held-out items",
                    does="Share of held-out items that the latest model classes rightly. Without an evaluation pool "
                    "and without in-pool evaluation there is none.",
                ),
                Query(of_campaign("model_quality_ratio", also='measure="accuracy"'), "{{campaign}}"),
            ),
        ],
    )


def _candidate_pool() -> Section:
    items = of_candidates("candidate_pool_items")
    return Section(
        "Candidate pool",
        [
            lines(
                About(
                    title="Candidates",
                    unit="short",
                    empty=NO_ROUND,
                    alert="CandidatePoolNotGrowing",
                    does="Items in each candidate pool. It should rise with every round and flatten as labels "
                    "repeat their neighbours; a flat line from the start means that k is too small.",
                ),
                Query(items, "{{campaign}}"),
                steps=True,
            ),
            lines(
                About(
                    title="Share of the pool",
                    unit="percentunit",
                    empty=NO_ROUND,
                    limits=Limits(warning=0.3, bad=0.6),
                    does="Candidates / items of the pool, and what share any number of rounds could reach (once "
                    "`sealpool pool reach` was asked). Where the reachable share is low, raise exploration or "
                    "k.",
                ),
                Query(of_candidates("candidate_pool_share_ratio"), "{{campaign}}"),
                Query(of_candidates("reachable_share_ratio"), "{{campaign}} could reach"),
                steps=True,
            ),
            lines(
                About(
                    title="Growth a round",
                    unit="short",
                    empty=NO_ROUND,
                    alert="CandidatePoolNotGrowing",
                    does="Candidates that the latest round added: at most k × its new labels, by far most of them "
                    "in the first. It falls as new labels lie among items that are candidates already. At 0 a "
                    "campaign sees nothing new: raise exploration.",
                ),
                Query(of_campaign("candidates_added"), "{{campaign}}"),
                steps=True,
                logarithmic=True,
            ),
            lines(
                About(
                    title="Candidates for each label",
                    unit="short",
                    empty=NO_ROUND,
                    does="Candidates / labels: how many neighbours a label brought on average. Near k, labels lie "
                    "far from each other; near 0, they crowd.",
                ),
                Query(f"{of_campaign('candidate_pool_items')} / {of_campaign('labels')}", "{{campaign}}"),
            ),
            lines(
                About(
                    title="Of what a candidate pool may hold",
                    unit="percentunit",
                    empty=NO_ROUND,
                    alert="CandidatePoolNearItsCap",
                    limits=Limits(warning=0.9, bad=1),
                    does="Candidates as a share of the index server's max_candidates. A growth beyond it is refused "
                    "whole, and the round fails: raise the setting, or give the policy a smaller cap of its "
                    "own.",
                ),
                Query(f"{items} / {of_candidates('candidate_pool_limit_items')}", "{{campaign}}"),
            ),
            lines(
                About(
                    title="Growth of a round against what was there",
                    unit="percentunit",
                    empty=NO_ROUND,
                    does="New candidates as a share of the candidate pool. Under a percent for several rounds the "
                    "pool is saturated: what is not candidate by now will hardly become it without exploration.",
                ),
                Query(f"{of_campaign('candidates_added')} / {of_campaign('candidate_pool_items')}", "{{campaign}}"),
                steps=True,
            ),
        ],
    )
