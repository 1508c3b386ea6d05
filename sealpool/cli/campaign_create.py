"""`sealpool campaign create`."""

from typing import Annotated

import typer

from sealpool.cli.campaign_spec import (
    DRAWING_POLICIES,
    Fill,
    Growth,
    Oracle,
    Task,
    classes_in_metadata,
    in_options,
    resolve_task,
    task_kind,
)
from sealpool.cli.campaign_views import batch_words
from sealpool.cli.labelling_options import (
    STOP_PANEL,
    Annotation,
    Define,
    Evaluation,
    ExcludeSynthetic,
    Llm,
    OpenRounds,
    OtherClass,
    Seeding,
    Stopping,
    Stream,
    annotation_spec,
    evaluation_spec,
    llm_spec,
    seeding_spec,
    stopping_spec,
    stream_spec,
)
from sealpool.cli.model_options import (
    L2,
    AggregateOption,
    Base,
    Beta,
    ClassWeight,
    ClassWeightOption,
    Clusters,
    DensityOverOption,
    MaxIterations,
    ModelName,
    Neighbors,
    Neural,
    PositiveClass,
    Radius,
    Retrain,
    RetrainOption,
    StrategyName,
    Text,
    Uncertainty,
    ValidationShare,
    neural_spec,
    text_spec,
    uncertainty_spec,
)
from sealpool.cli.options import (
    INDEX,
    SCHEDULER,
    UINT64_MAX,
    AsJson,
    CampaignName,
    Index,
    Scheduler,
    index_client,
    scheduler_client,
)
from sealpool.cli.output import answer_json, count, note, plain, say
from sealpool.cli.policy_options import (
    Anchors,
    ExpandFrom,
    Exploration,
    FillOption,
    GrowthOption,
    K,
    MaxCandidates,
    Policy,
    SubpoolSize,
)
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2, scheduler_pb2

_SEED_SIZE = 100
_CLASSES, _ROUNDS, _LABELS = "Classes", "Rounds", "Who labels"
_BATCH = 100
_UNSET = "UNSPECIFIED"


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
    model: ModelName = "logistic_regression",
    l2: L2 = 0.0,
    max_iterations: MaxIterations = 0,
    class_weight: ClassWeightOption = ClassWeight.NONE,
    retrain: RetrainOption = Retrain.SCRATCH,
    validation_share: ValidationShare = 0.0,
    uncertainty: Uncertainty = None,
    neural: Neural = None,
    text: Text = None,
    strategy: StrategyName = "entropy",
    base: Base = "",
    beta: Beta = None,
    density_over: DensityOverOption = None,
    positive_class: PositiveClass = "",
    aggregate: AggregateOption = None,
    neighbors: Neighbors = 0,
    radius: Radius = 0.0,
    clusters: Clusters = 0,
    policy: Policy = "seals",
    k: K = 0,
    max_candidates: MaxCandidates = 0,
    subpool_size: SubpoolSize = 0,
    anchors: Anchors = 0,
    growth: GrowthOption = Growth.ROUND,
    expand_from: ExpandFrom = None,
    exploration: Exploration = 0.0,
    fill: FillOption = Fill.RANDOM,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Items a round. Default: 100, or the budget where that is less.",
            rich_help_panel=_ROUNDS,
        ),
    ] = None,
    batch_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Items a round as a share of the pool as it is then, rounded up, instead of --batch. 0: off.",
            rich_help_panel=_ROUNDS,
        ),
    ] = 0.0,
    budget: Annotated[
        int,
        typer.Option(min=1, help="Labels in all, seed set included.", rich_help_panel=_ROUNDS, show_default=False),
    ],
    seed_size: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Items of the first round, chosen as --seeding says. 0: you submit the first labels yourself. "
            "Default: 100, or the budget where that is less.",
            rich_help_panel=_ROUNDS,
        ),
    ] = None,
    seeding: Seeding = None,
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
    open_rounds: OpenRounds = 0,
    exclude_synthetic: ExcludeSynthetic = False,
    oracle: Annotated[
        Oracle,
        typer.Option(
            help="external: people or systems that take tasks; llm: a language model, and people where it cannot tell; "
            "dataset: true labels that lie in the items' metadata.",
            rich_help_panel=_LABELS,
        ),
    ] = Oracle.EXTERNAL,
    metadata_field: Annotated[
        str, typer.Option(help="dataset: the metadata field with the labels.", rich_help_panel=_LABELS)
    ] = "labels",
    other_class: OtherClass = "",
    llm: Llm = None,
    define: Define = None,
    annotation: Annotation = None,
    stream: Stream = None,
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
        typer.Option(help="Pool of held-out items that each round's model is measured on.", rich_help_panel=STOP_PANEL),
    ] = "",
    evaluation: Evaluation = None,
    stopping: Stopping = None,
    index: Index = INDEX,
    scheduler: Scheduler = SCHEDULER,
    as_json: AsJson = False,
) -> None:
    """Begin a campaign.

    Examples: `sealpool campaign create spam --pool mails --class ham --class spam --budget 1000 --expand-from spam`,
    `sealpool campaign create replay --pool news --classes-from-metadata labels --oracle dataset --budget 2000`,
    `sealpool campaign create topics --pool news --classes-from-metadata labels --budget 2000 --model mlp --neural
    hidden=256,128 --uncertainty mc_dropout --uncertainty samples=50 --strategy batch_bald --batch 10`,
    `sealpool campaign create triage --pool mails --class ham --class spam --budget 5000 --oracle llm --llm
    model=my-model --define "spam=unasked advertising" --stopping kappa=0.99`
    """
    if bool(classes) == bool(classes_from_metadata):
        raise typer.BadParameter("give the classes with --class, or --classes-from-metadata FIELD")
    if batch is not None and batch_share:
        raise typer.BadParameter("give --batch or --batch-share, not both")
    model_spec = common_pb2.ModelSpec(
        name=model,
        l2=l2,
        max_iterations=max_iterations,
        class_weight=common_pb2.ClassWeight.Value(f"CLASS_WEIGHT_{class_weight.name}"),
        retrain=common_pb2.Retrain.Value(f"RETRAIN_{retrain.name}"),
        validation_share=validation_share,
        uncertainty=uncertainty_spec(uncertainty),
        neural=neural_spec(neural),
        text=text_spec(text),
    )
    most_labels = 1
    if classes_from_metadata:
        with index_client(index) as items:
            classes, most_labels = classes_in_metadata(items, pool, classes_from_metadata)
    names = classes or []
    batch = 0 if batch_share else min(batch or _BATCH, budget)
    seed_size = min(_SEED_SIZE, budget) if seed_size is None else seed_size
    spec = scheduler_pb2.CampaignSpec(
        name=name,
        pool=pool,
        task=task_kind(resolve_task(task, names, most_labels=most_labels)),
        classes=names,
        model=model_spec,
        strategy=common_pb2.StrategySpec(
            name=strategy,
            base=base,
            beta=beta,
            density_over=common_pb2.DensityOver.Value(f"DENSITY_OVER_{density_over.name if density_over else _UNSET}"),
            positive_class=positive_class,
            aggregate=common_pb2.LabelAggregate.Value(f"LABEL_AGGREGATE_{aggregate.name if aggregate else _UNSET}"),
            neighbors=neighbors,
            radius=radius,
            clusters=clusters,
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
        batch_share=batch_share,
        budget=budget,
        seed=seed,
        seed_size=seed_size,
        exploration=exploration,
        fill=scheduler_pb2.Fill.Value(f"FILL_{fill.name}"),
        rule=scheduler_pb2.RoundRule(
            after_labels=after_labels, interval_seconds=interval, cron=cron, open_rounds=open_rounds
        ),
        oracle=scheduler_pb2.OracleSpec(
            name=oracle.value, metadata_field=metadata_field, other_class=other_class, llm=llm_spec(llm, define)
        ),
        evaluation_pool=evaluation_pool,
        lease_seconds=lease,
        seeding=seeding_spec(seeding),
        annotation=annotation_spec(annotation),
        evaluation=evaluation_spec(evaluation),
        stopping=stopping_spec(stopping),
        stream=stream_spec(stream),
        exclude_synthetic=exclude_synthetic,
    )
    with scheduler_client(scheduler) as client:
        try:
            campaign = client.create_campaign(spec)
        except InvalidArgument as error:
            raise in_options(error) from error
    if as_json:
        answer_json(plain(campaign))
    else:
        sizes = f"{count(budget)} labels in batches of {batch_words(spec)}"
        picked_by = campaign.spec.strategy.name
        alias = f"; {strategy} is {picked_by}" if strategy != picked_by else ""
        say(f"campaign {name} on {pool}: {count(len(names))} classes, {sizes}{alias}")
        if seed_size >= budget:
            note("the seed set takes the whole budget: no model will pick an item; see --budget and --seed-size")
