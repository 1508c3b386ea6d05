"""Every query strategy by name."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum


class Family(Enum):
    """What a strategy goes by."""

    BASELINE = "baseline"
    UNCERTAINTY = "uncertainty"
    DENSITY = "density"
    BAYESIAN = "committee and Bayesian"
    REPRESENTATION = "representation"
    EXPECTED_CHANGE = "expected change"
    SEARCH = "search for rare concepts"


class Need(Enum):
    """What a strategy asks for beside the candidates' vectors."""

    MODEL = "model"  # a trained model
    SAMPLES = "posterior samples"  # of the model: an estimator other than softmax
    LABELLED = "labelled items"  # their vectors
    CLASSES = "classes of labelled items"


MULTILABEL = "multilabel"
SINGLE_LABEL = frozenset({"binary", "multiclass"})
EVERY_TASK = SINGLE_LABEL | {MULTILABEL}


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyEntry:
    """A query strategy as users know it.

    Parameters
    ----------
    per_item
        Whether it scores each candidate by that candidate alone. The others pick a batch as a whole, and cannot be a
        base, nor go with growth after each pick.
    scores_are_positive
        Whether no score is below 0, so that information density can weight it.
    tasks
        The kinds of task that it has a meaning for.
    options
        The fields of StrategySpec, beside the name, that it looks at.
    base
        Its default base, "" where it has none.
    reference
        The paper that it is from.
    cost
        In n candidates, d dimensions, c classes, m labelled items, b picks, K posterior samples.
    aliases
        What other libraries call it, beside the name in other spellings.
    """

    name: str
    family: Family
    summary: str
    reference: str
    cost: str
    needs: AbstractSet[Need] = frozenset({Need.MODEL})
    per_item: bool = True
    scores_are_positive: bool = True
    tasks: AbstractSet[str] = EVERY_TASK
    options: AbstractSet[str] = frozenset()
    base: str = ""
    aliases: tuple[str, ...] = ()


_MODEL = frozenset({Need.MODEL})
_SAMPLES = frozenset({Need.MODEL, Need.SAMPLES})
_NOTHING: AbstractSet[Need] = frozenset()
_LABELLED = frozenset({Need.LABELLED})
_AGGREGATE = frozenset({"aggregate"})

_ENTRIES = (
    StrategyEntry(
        name="random",
        family=Family.BASELINE,
        summary="uniform draws",
        reference="the baseline of every study",
        cost="O(n)",
        needs=_NOTHING,
        aliases=("RandomSampling", "passive"),
    ),
    StrategyEntry(
        name="auto",
        family=Family.BASELINE,
        summary="representation while labels are too few to trust a model, then uncertainty, by successive halving",
        reference="Hacohen and Weinshall, NeurIPS 2023 (SelectAL); Jamieson and Talwalkar, AISTATS 2016",
        cost="that of what it chooses, and some fits of a linear model",
        needs=frozenset({Need.LABELLED, Need.CLASSES}),
        per_item=False,
    ),
    StrategyEntry(
        name="least_confidence",
        family=Family.UNCERTAINTY,
        summary="1 − probability of the predicted class",
        reference="Lewis and Gale, SIGIR 1994",
        cost="O(n·c)",
        options=_AGGREGATE,
        aliases=("UncertaintySampling", "uncertainty", "Certainty", "LC", "LeastConfident"),
    ),
    StrategyEntry(
        name="margin",
        family=Family.UNCERTAINTY,
        summary="1 − difference of the two largest probabilities",
        reference="Scheffer, Decomain and Wrobel, IDA 2001",
        cost="O(n·c)",
        options=_AGGREGATE,
        aliases=("MarginSampling", "BreakingTies", "SmallestMargin", "BT", "BvSB"),
    ),
    StrategyEntry(
        name="ratio",
        family=Family.UNCERTAINTY,
        summary="second largest over largest probability",
        reference="Settles, TR 1648, University of Wisconsin–Madison, 2009",
        cost="O(n·c)",
        options=_AGGREGATE,
        aliases=("RatioSampling", "ConfidenceRatio"),
    ),
    StrategyEntry(
        name="entropy",
        family=Family.UNCERTAINTY,
        summary="entropy of the predicted distribution",
        reference="Settles, TR 1648, University of Wisconsin–Madison, 2009, §3.1",
        cost="O(n·c)",
        options=_AGGREGATE,
        aliases=("MaxEnt", "MaxEntropy", "PredictionEntropy", "EntropySampling", "PredictiveEntropy"),
    ),
    StrategyEntry(
        name="label_cardinality",
        family=Family.UNCERTAINTY,
        summary="predicted number of labels against the labelled set's mean",
        reference="Li and Guo, IJCAI 2013",
        cost="O(n·c)",
        needs=frozenset({Need.MODEL, Need.CLASSES}),
        tasks=frozenset({MULTILABEL}),
        aliases=("LabelCardinalityInconsistency", "LCI"),
    ),
    StrategyEntry(
        name="cvirs",
        family=Family.UNCERTAINTY,
        summary="rank aggregation of margins times inconsistency of the label vector",
        reference="Reyes, Morell and Ventura, Neurocomputing 273 (2018)",
        cost="O(n·c·log n + n·m·c)",
        needs=frozenset({Need.MODEL, Need.LABELLED, Need.CLASSES}),
        per_item=False,
        tasks=frozenset({MULTILABEL}),
        aliases=("CategoryVectorInconsistencyAndRanking", "CategoryVectorInconsistencyAndRankingOfScores"),
    ),
    StrategyEntry(
        name="information_density",
        family=Family.DENSITY,
        summary="base score times mean cosine similarity to P, to the power β",
        reference="Settles and Craven, EMNLP 2008",
        cost="that of the base + O(n·d)",
        options=frozenset({"base", "beta", "density_over", "positive_class", "aggregate"}),
        base="entropy",
        aliases=("ID", "DensityWeighted", "DensityWeightedUncertainty"),
    ),
    StrategyEntry(
        name="vote_entropy",
        family=Family.BAYESIAN,
        summary="entropy of the classes that posterior samples vote for",
        reference="Dagan and Engelson, ICML 1995",
        cost="O(n·K·c)",
        needs=_SAMPLES,
        options=_AGGREGATE,
        aliases=("VoteEntropySampling", "QueryByCommittee", "QBC"),
    ),
    StrategyEntry(
        name="consensus_kl",
        family=Family.BAYESIAN,
        summary="mean KL divergence of posterior samples from their consensus",
        reference="McCallum and Nigam, ICML 1998",
        cost="O(n·K·c)",
        needs=_SAMPLES,
        options=_AGGREGATE,
        aliases=("KLDivergence", "AverageKLDivergence", "MeanKLDivergence"),
    ),
    StrategyEntry(
        name="variation_ratios",
        family=Family.BAYESIAN,
        summary="share of posterior samples that disagree with their majority",
        reference="Gal, Islam and Ghahramani, ICML 2017",
        cost="O(n·K·c)",
        needs=_SAMPLES,
        options=_AGGREGATE,
        aliases=("VarRatio", "VariationRatio"),
    ),
    StrategyEntry(
        name="bald",
        family=Family.BAYESIAN,
        summary="mutual information of the label and the model's parameters",
        reference="Houlsby et al., arXiv 1112.5745, 2011",
        cost="O(n·K·c)",
        needs=_SAMPLES,
        options=_AGGREGATE,
        aliases=("GreedyBALD", "BALDHeuristic"),
    ),
    StrategyEntry(
        name="batch_bald",
        family=Family.BAYESIAN,
        summary="mutual information of a whole batch, picked greedily",
        reference="Kirsch, van Amersfoort and Gal, NeurIPS 2019",
        cost="O(b·n·K·c·min(c^b, configurations sampled))",
        needs=_SAMPLES,
        per_item=False,
        tasks=SINGLE_LABEL,
        aliases=("BatchBALDHeuristic",),
    ),
    StrategyEntry(
        name="power_bald",
        family=Family.BAYESIAN,
        scores_are_positive=False,
        summary="draws without replacement in proportion to BALD to the power β",
        reference="Kirsch et al., TMLR 2023",
        cost="O(n·K·c)",
        needs=_SAMPLES,
        options=frozenset({"beta", "aggregate"}),
    ),
    StrategyEntry(
        name="stochastic_top_k",
        family=Family.BAYESIAN,
        scores_are_positive=False,
        summary="draws without replacement in proportion to the base's score to the power β (Gumbel noise)",
        reference="Kirsch et al., TMLR 2023; Kool, van Hoof and Welling, ICML 2019",
        cost="that of the base",
        options=frozenset({"base", "beta", "positive_class", "aggregate"}),
        base="entropy",
        aliases=("PowerSampling", "StochasticBatch", "GumbelTopK"),
    ),
    StrategyEntry(
        name="k_center",
        family=Family.REPRESENTATION,
        summary="farthest from everything labelled or picked, greedily",
        reference="Sener and Savarese, ICLR 2018; Gonzalez, TCS 38 (1985)",
        cost="O(n·m·d), then less than O(n·d) a pick",
        needs=_LABELLED,
        per_item=False,
        aliases=("GreedyCoreset", "KCenterGreedy", "CoreSet", "Coreset", "FarthestFirst"),
    ),
    StrategyEntry(
        name="k_means",
        family=Family.REPRESENTATION,
        summary="the item nearest to each of b cluster centres",
        reference="Zhu et al., COLING 2008; Yuan, Lin and Boyd-Graber, EMNLP 2020",
        cost="O(n·b·d)",
        needs=_NOTHING,
        per_item=False,
        aliases=("EmbeddingKMeans", "KMeansSampling", "ClusterSampling"),
    ),
    StrategyEntry(
        name="typiclust",
        family=Family.REPRESENTATION,
        summary="the most typical item of each of the largest clusters without a label",
        reference="Hacohen, Dekel and Weinshall, ICML 2022",
        cost="O(n·(m + b)·d + distances within the clusters picked from)",
        needs=_LABELLED,
        per_item=False,
        options=frozenset({"neighbors", "clusters"}),
        aliases=("TPC", "TypicalClustering"),
    ),
    StrategyEntry(
        name="prob_cover",
        family=Family.REPRESENTATION,
        summary="the item that covers most uncovered ones within a radius, greedily",
        reference="Yehuda et al., NeurIPS 2022",
        cost="O(n²·d) in blocks, n at most 32,768 drawn candidates",
        needs=_LABELLED,
        per_item=False,
        options=frozenset({"radius", "clusters"}),
        aliases=("ProbabilityCoverage",),
    ),
    StrategyEntry(
        name="graph_density",
        family=Family.REPRESENTATION,
        summary="highest weighted degree in the neighbour graph, neighbours of picks discounted",
        reference="Ebert, Fritz and Schiele, CVPR 2012",
        cost="O(n²·d) in blocks, n at most 32,768 drawn candidates",
        needs=_LABELLED,
        per_item=False,
        options=frozenset({"neighbors"}),
        aliases=("GraphDensitySampler",),
    ),
    StrategyEntry(
        name="discriminative",
        family=Family.REPRESENTATION,
        summary="what a classifier tells apart from the labelled set most surely, in several sub-batches",
        reference="Gissin and Shalev-Shwartz, arXiv 1907.06347, 2019",
        cost="10 fits of a binary classifier, O(10·n·d)",
        needs=_LABELLED,
        per_item=False,
        aliases=("DiscriminativeActiveLearning", "DAL", "DiscriminativeAL"),
    ),
    StrategyEntry(
        name="badge",
        family=Family.REPRESENTATION,
        summary="k-means++ on gradient embeddings of the last layer",
        reference="Ash et al., ICLR 2020",
        cost="O(n·(c + d)) a pass, far fewer than b passes",
        needs=_MODEL,
        per_item=False,
        tasks=EVERY_TASK,
        aliases=("BadgeSampling",),
    ),
    StrategyEntry(
        name="bait",
        family=Family.REPRESENTATION,
        summary="greedy Fisher information of the last layer, forward and backward",
        reference="Ash et al., NeurIPS 2021",
        cost="O(n·d²·q²) once, then O(d·q² + q³) a pick and candidate of at most 16,384 (q class contrasts)",
        needs=frozenset({Need.MODEL, Need.LABELLED}),
        per_item=False,
        tasks=SINGLE_LABEL,
    ),
    StrategyEntry(
        name="cluster_margin",
        family=Family.REPRESENTATION,
        summary="least margins, round robin over clusters, the smallest first",
        reference="Citovsky et al., NeurIPS 2021",
        cost="O(n·c), and clusters of ten times the batch",
        per_item=False,
        options=frozenset({"clusters"}),
        aliases=("ClusterMarginSampling",),
    ),
    StrategyEntry(
        name="cal",
        family=Family.REPRESENTATION,
        summary="predicted otherwise than the nearest labelled items (contrastive)",
        reference="Margatina et al., EMNLP 2021",
        cost="O(n·m·d + n·k·c)",
        needs=frozenset({Need.MODEL, Need.LABELLED}),
        options=frozenset({"neighbors"}),
        aliases=("ContrastiveActiveLearning", "ContrastiveAL"),
    ),
    StrategyEntry(
        name="drop_query",
        family=Family.REPRESENTATION,
        summary="predictions that change when features are dropped, then one item a cluster",
        reference="Gupte et al., TMLR 2024",
        cost="O(n·d·c) a mask, and clusters of those that change",
        per_item=False,
        aliases=("DropQueryStrategy",),
    ),
    StrategyEntry(
        name="expected_gradient_length",
        family=Family.EXPECTED_CHANGE,
        summary="expected length of the gradient of the last layer",
        reference="Settles, Craven and Ray, NeurIPS 2007",
        cost="O(n·(c + d))",
        aliases=("EGL", "ExpectedGradientLengthMaxWord"),
    ),
    StrategyEntry(
        name="most_likely_positive",
        family=Family.SEARCH,
        summary="probability of the class looked for",
        reference="Warmuth et al., NeurIPS 2001; Coleman et al., AAAI 2022",
        cost="O(n)",
        options=frozenset({"positive_class"}),
        aliases=("GreedySearch", "CertaintySampling", "RelevanceSampling"),
    ),
    StrategyEntry(
        name="active_search",
        family=Family.SEARCH,
        summary="expected number of positives found with what is left of the batch",
        reference="Jiang et al., ICML 2017 (ENS); Jiang et al., NeurIPS 2018 (batch)",
        cost="O(q·n·d), q the most probable candidates, at most some thousands, and their k neighbours",
        needs=frozenset({Need.LABELLED, Need.CLASSES}),
        per_item=False,
        options=frozenset({"positive_class", "neighbors"}),
        aliases=("ENS", "EfficientNonmyopicSearch"),
    ),
    StrategyEntry(
        name="galaxy",
        family=Family.SEARCH,
        summary="bisection and spreading from class boundaries on linear graphs of the candidates",
        reference="Zhang, Katz-Samuels and Nowak, ICML 2022",
        cost="O(c·n·log n)",
        needs=frozenset({Need.MODEL, Need.LABELLED, Need.CLASSES}),
        per_item=False,
        aliases=("GALAXY",),
    ),
    StrategyEntry(
        name="direct",
        family=Family.SEARCH,
        summary="around the best threshold of each class against the rest",
        reference="Nuggehalli, Zhang, Jain and Nowak, arXiv 2312.09196",
        cost="O(c·(n·log n + m))",
        needs=frozenset({Need.MODEL, Need.LABELLED, Need.CLASSES}),
        per_item=False,
        aliases=("DIRECT",),
    ),
)

STRATEGIES: Mapping[str, StrategyEntry] = {entry.name: entry for entry in _ENTRIES}


def _spelling(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


_NAMES = {_spelling(spelled): entry.name for entry in _ENTRIES for spelled in (*entry.aliases, entry.name)}


def resolve_strategy(name: str) -> str | None:
    """Return a strategy's own name, by it or an alias, in any spelling of case and underscores; None: there is none."""
    return _NAMES.get(_spelling(name)) if name else None
