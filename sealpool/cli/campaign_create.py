"""`sealpool campaign create`."""

from typing import Annotated

import typer

from sealpool.cli.campaign_spec import (
    DRAWING_POLICIES,
    ClassWeight,
    DensityOver,
    Fill,
    Growth,
    Oracle,
    Task,
    classes_in_metadata,
    in_options,
    resolve_task,
    task_kind,
)
from sealpool.cli.options import (
    INDEX,
    SCHEDULER,
    UINT32_MAX,
    UINT64_MAX,
    AsJson,
    CampaignName,
    Index,
    Scheduler,
    index_client,
    scheduler_client,
)
from sealpool.cli.output import answer_json, count, note, plain, say
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2, scheduler_pb2

_SEED_SIZE = 100
_CLASSES, _MODEL, _PICKING, _ROUNDS, _LABELS = "Classes", "Model", "What is picked", "Rounds", "Who labels"


def create(
    name: CampaignName,
    *,
    pool: Annotated[str, typer.Option(help="Pool to pick from.", show_default=False)],
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="CLASS", help="A class; give it once for each.", rich_help_panel=_CLASSES),
    ] = None,
    classes_from_metadata: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Take the classes from this metadata field of the pool's items (reads them all).",
            rich_help_panel=_CLASSES,
        ),
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(
            help="binary: the second class is the positive one. Default: binary for two classes, otherwise multiclass; "
            "multilabel where --classes-from-metadata finds several on one item.",
            rich_help_panel=_CLASSES,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Model of the learner.", rich_help_panel=_MODEL)] = "logistic_regression",
    l2: Annotated[
        float,
        typer.Option(
            min=0,
            help="Weight of the squared-norm penalty; more is smoother, surer with few labels. 0: the model's default.",
            rich_help_panel=_MODEL,
        ),
    ] = 0.0,
    max_iterations: Annotated[
        int,
        typer.Option(min=0, max=10_000, help="Of the optimiser. 0: the model's default.", rich_help_panel=_MODEL),
    ] = 0,
    class_weight: Annotated[
        ClassWeight,
        typer.Option(help="balanced: a label of a rare class counts more.", rich_help_panel=_MODEL),
    ] = ClassWeight.NONE,
    strategy: Annotated[
        str,
        typer.Option(
            help="How candidates are scored: random, least_confidence, margin, entropy, most_likely_positive (finds "
            "rare positives, teaches little), information_density.",
            rich_help_panel=_PICKING,
        ),
    ] = "entropy",
    base: Annotated[
        str,
        typer.Option(help="information_density: the strategy it weights. Default: entropy.", rich_help_panel=_PICKING),
    ] = "",
    beta: Annotated[
        float | None,
        typer.Option(min=0, help="information_density: exponent of the density. Default: 1.", rich_help_panel=_PICKING),
    ] = None,
    density_over: Annotated[
        DensityOver,
        typer.Option(help="information_density: the items the density is of.", rich_help_panel=_PICKING),
    ] = DensityOver.CANDIDATES,
    positive_class: Annotated[
        str,
        typer.Option(
            help="most_likely_positive: the class looked for. Default: the second of two.", rich_help_panel=_PICKING
        ),
    ] = "",
    policy: Annotated[
        str,
        typer.Option(
            help="What may be picked: seals (nearest neighbours of labelled items), anchoral (a sub-pool near a few "
            "labelled items of each class), random_subset (a random sub-pool) or full (the whole pool).",
            rich_help_panel=_PICKING,
        ),
    ] = "seals",
    k: Annotated[
        int,
        typer.Option(
            "--k",
            min=0,
            help="seals, anchoral: neighbours that a labelled item brings. More finds more and costs more a round. 0: "
            "100, anchoral 50.",
            rich_help_panel=_PICKING,
        ),
    ] = 0,
    max_candidates: Annotated[
        int,
        typer.Option(
            min=0,
            help="seals: the most candidates; those leave that lie farthest from what brought them. 0: no cap of the "
            "campaign's own.",
            rich_help_panel=_PICKING,
        ),
    ] = 0,
    subpool_size: Annotated[
        int,
        typer.Option(
            min=0, help="anchoral, random_subset: candidates in the sub-pool. 0: 1,000.", rich_help_panel=_PICKING
        ),
    ] = 0,
    anchors: Annotated[
        int,
        typer.Option(min=0, max=UINT32_MAX, help="anchoral: anchors a class. 0: 10.", rich_help_panel=_PICKING),
    ] = 0,
    growth: Annotated[
        Growth,
        typer.Option(
            help="When candidates are added: once a round; or, with seals, also after each pick of a batch, which asks "
            "the index server once a pick.",
            rich_help_panel=_PICKING,
        ),
    ] = Growth.ROUND,
    expand_from: Annotated[
        list[str] | None,
        typer.Option(
            "--expand-from",
            metavar="CLASS",
            help="Only items of this class bring their neighbours; give it once for each. For rare classes: the "
            "candidate pool stays many times smaller at about the same quality. Default: all.",
            rich_help_panel=_PICKING,
        ),
    ] = None,
    exploration: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of each batch drawn at random outside the candidates: finds what no neighbour leads to.",
            rich_help_panel=_PICKING,
        ),
    ] = 0.0,
    fill: Annotated[
        Fill,
        typer.Option(
            help="What fills a batch when candidates run short: random items, or nothing.", rich_help_panel=_PICKING
        ),
    ] = Fill.RANDOM,
    batch: Annotated[
        int, typer.Option(min=1, max=100_000, help="Items a round; no more than the budget.", rich_help_panel=_ROUNDS)
    ] = 100,
    budget: Annotated[
        int,
        typer.Option(min=1, help="Labels in all, seed set included.", rich_help_panel=_ROUNDS, show_default=False),
    ],
    seed_size: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Items drawn at random for the first round. 0: you submit the first labels yourself. Default: 100, "
            "or the budget where that is less.",
            rich_help_panel=_ROUNDS,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=UINT64_MAX, help="Of every random choice: same seed, same picks.", rich_help_panel=_ROUNDS
        ),
    ] = 0,
    after_labels: Annotated[
        int,
        typer.Option(min=0, help="Run a round when so many labels have arrived. 0: off.", rich_help_panel=_ROUNDS),
    ] = 0,
    interval: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Run a round every so often. 0: off.", rich_help_panel=_ROUNDS),
    ] = 0.0,
    cron: Annotated[
        str, typer.Option(help='Run a round by the clock, UTC: "0 6 * * 1-5".', rich_help_panel=_ROUNDS)
    ] = "",
    oracle: Annotated[
        Oracle,
        typer.Option(
            help="external: people or systems that take tasks; dataset: true labels that lie in the items' metadata.",
            rich_help_panel=_LABELS,
        ),
    ] = Oracle.EXTERNAL,
    metadata_field: Annotated[
        str, typer.Option(help="dataset: the metadata field with the labels.", rich_help_panel=_LABELS)
    ] = "labels",
    lease: Annotated[
        float,
        typer.Option(
            min=0,
            max=604_800,
            metavar="SECONDS",
            help="How long a task stays with who took it. 0: an hour.",
            rich_help_panel=_LABELS,
        ),
    ] = 0.0,
    evaluation_pool: Annotated[
        str,
        typer.Option(help="Pool of held-out items that each round's model is measured on.", rich_help_panel=_LABELS),
    ] = "",
    index: Index = INDEX,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Begin a campaign.

    Examples: `sealpool campaign create spam --pool mails --class ham --class spam --budget 1000 --expand-from spam`,
    `sealpool campaign create replay --pool news --classes-from-metadata labels --oracle dataset --budget 2000`
    """
    if bool(classes) == bool(classes_from_metadata):
        raise typer.BadParameter("give the classes with --class, or --classes-from-metadata FIELD")
    most_labels = 1
    if classes_from_metadata:
        with index_client(index) as items:
            classes, most_labels = classes_in_metadata(items, pool, classes_from_metadata)
    names = classes or []
    batch = min(batch, budget)
    seed_size = min(_SEED_SIZE, budget) if seed_size is None else seed_size
    spec = scheduler_pb2.CampaignSpec(
        name=name,
        pool=pool,
        task=task_kind(resolve_task(task, names, most_labels=most_labels)),
        classes=names,
        model=common_pb2.ModelSpec(
            name=model,
            l2=l2,
            max_iterations=max_iterations,
            class_weight=common_pb2.ClassWeight.Value(f"CLASS_WEIGHT_{class_weight.name}"),
        ),
        strategy=common_pb2.StrategySpec(
            name=strategy,
            base=base,
            beta=beta,
            density_over=common_pb2.DensityOver.Value(f"DENSITY_OVER_{density_over.name}"),
            positive_class=positive_class,
        ),
        policy=common_pb2.PolicySpec(
            name=policy,
            k=k,
            max_candidates=max_candidates,
            subpool_size=subpool_size,
            anchors=anchors,
            seed=seed if policy in DRAWING_POLICIES else 0,
            growth=common_pb2.CandidateGrowth.Value(f"CANDIDATE_GROWTH_{growth.name}"),
        ),
        expand_from_classes=expand_from or [],
        batch_size=batch,
        budget=budget,
        seed=seed,
        seed_size=seed_size,
        exploration=exploration,
        fill=scheduler_pb2.Fill.Value(f"FILL_{fill.name}"),
        rule=scheduler_pb2.RoundRule(after_labels=after_labels, interval_seconds=interval, cron=cron),
        oracle=scheduler_pb2.OracleSpec(name=oracle.value, metadata_field=metadata_field),
        evaluation_pool=evaluation_pool,
        lease_seconds=lease,
    )
    with scheduler_client(scheduler) as client:
        try:
            campaign = client.create_campaign(spec)
        except InvalidArgument as error:
            raise in_options(error) from error
    if as_json:
        answer_json(plain(campaign))
    else:
        sizes = f"{count(budget)} labels in batches of {count(batch)}"
        say(f"campaign {name} on {pool}: {count(len(names))} classes, {sizes}")
        if seed_size >= budget:
            note("the seed set takes the whole budget: no model will pick an item; see --budget and --seed-size")
