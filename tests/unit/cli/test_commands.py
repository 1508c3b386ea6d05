"""Every command against services that are faked at the gRPC port: options, answers, exit codes, one-line errors."""

import io
import json

import numpy as np
import pytest

from sealpool.cli.campaign_spec import in_options
from sealpool.errors import InvalidArgument
from sealpool.v1 import common_pb2, scheduler_pb2


def make_pool(fakes, name="p", dimension=2):
    from sealpool.client import IndexClient
    from sealpool.v1 import index_pb2

    with IndexClient(fakes.target) as client:
        client.create_pool(index_pb2.PoolSpec(name=name, dimension=dimension))


def begin(cli, *, budget, oracle):
    sizes = ("--budget", str(budget), "--batch", "10", "--oracle", oracle)
    assert cli("campaign", "create", "c", "--pool", "p", "--class", "a", "--class", "b", *sizes).code == 0


def write_items(path, count, **more):
    rows = [{"id": f"i{n}", "text": f"text {n}", "labels": [f"c{n % 2}"], **more} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pool_create_sends_what_was_asked_for(fakes, cli):
    outcome = cli("pool", "create", "p", "--dimension", "8", "--metric", "l2", "--engine", "hnsw", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["spec"]["metric"] == "l2"
    spec = fakes.index.pools["p"].spec
    assert (spec.dimension, spec.engine, spec.device) == (8, "hnsw", "auto")


def test_a_json_answer_has_numbers_words_and_nulls_under_the_names_of_the_contract(fakes, cli):
    make_pool(fakes)
    (pool,) = json.loads(cli("pool", "list", "--json").out)["pools"]
    assert pool["version"] == 1
    assert pool["state"] == "ready"
    assert pool["created_at"] is None
    assert pool["campaigns"] == []


def test_ingest_uploads_in_batches_and_is_told_new_from_replaced(fakes, cli, tmp_path):
    make_pool(fakes)
    path = write_items(tmp_path / "items.jsonl", 25, vector=[1, 2])
    outcome = cli("pool", "ingest", "p", str(path), "--batch-items", "10", "--json")
    assert outcome.code == 0, outcome.err
    answer = json.loads(outcome.out)
    assert (answer["items"], answer["inserted"], answer["replaced"], answer["batches"]) == (25, 25, 0, 3)
    assert [len(ids) for _, ids, _ in fakes.index.upserts] == [10, 10, 5]
    again = json.loads(cli("pool", "ingest", "p", str(path), "--json").out)
    assert (again["inserted"], again["replaced"]) == (0, 25)


def test_ingest_makes_the_pool_with_the_dimension_of_a_npy_file(fakes, cli, tmp_path):
    path = write_items(tmp_path / "items.jsonl", 4)
    np.save(tmp_path / "v.npy", np.ones((4, 7)))
    outcome = cli("pool", "ingest", "p", str(path), "--vectors", str(tmp_path / "v.npy"), "--create", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["created"] is True
    assert fakes.index.pools["p"].spec.dimension == 7


def test_ingest_embeds_texts_through_the_learner(fakes, cli, tmp_path):
    path = write_items(tmp_path / "items.jsonl", 3)
    outcome = cli("pool", "ingest", "p", str(path), "--embedder", "some-encoder", "--create")
    assert outcome.code == 0, outcome.err
    assert "3 items into p: 3 new, 0 replaced" in outcome.out
    assert fakes.learner.encoders == ["some-encoder"]
    assert fakes.index.pools["p"].spec.dimension == 2


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["--vectors", "v.npy"], "error: v.npy: has 2 rows for 3 items in items.jsonl"),
        ([], "error: items.jsonl:1: vector: is missing; give --vectors FILE.npy or --embedder NAME"),
    ],
)
def test_ingest_without_fitting_vectors_uploads_nothing(fakes, cli, tmp_path, monkeypatch, extra, complaint):
    monkeypatch.chdir(tmp_path)
    make_pool(fakes)
    write_items(tmp_path / "items.jsonl", 3)
    np.save(tmp_path / "v.npy", np.ones((2, 2)))
    outcome = cli("pool", "ingest", "p", "items.jsonl", *extra)
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == complaint
    assert fakes.index.upserts == []


def test_ingest_refuses_an_id_that_comes_twice_in_a_batch(fakes, cli, tmp_path):
    make_pool(fakes)
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": "a", "vector": [1, 2]}\n{"id": "a", "vector": [1, 2]}\n')
    outcome = cli("pool", "ingest", "p", str(path))
    assert outcome.err.splitlines()[-1] == "error: items.jsonl:2: id: 'a' is on line 1 already"
    assert fakes.index.upserts == []


def test_ingest_waits_for_an_index_server_that_is_away(fakes, cli, tmp_path):
    make_pool(fakes)
    fakes.index.away = 8  # more than the client itself tries in its second
    outcome = cli("pool", "ingest", "p", str(write_items(tmp_path / "items.jsonl", 3, vector=[1, 2])))
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("the index server is away") == 1


def test_ingest_leaves_out_what_the_pool_has_and_says_so_when_it_fails(fakes, cli, tmp_path):
    path = tmp_path / "items.jsonl"
    ingest = ("pool", "ingest", "p", str(path), "--embedder", "e", "--create")
    write_items(path, 3)
    assert cli(*ingest).code == 0
    write_items(path, 5)
    answer = json.loads(cli(*ingest, "--skip-existing", "--json").out)
    assert (answer["inserted"], answer["skipped"], answer["size"]) == (2, 3, 5)
    assert len(fakes.learner.texts) == 5
    outcome = cli("pool", "ingest", "new", str(path), "--embedder", "e", "--create", "--learner", "127.0.0.1:1")
    assert outcome.code == 1
    assert "0 rows of items.jsonl are in new; the same command may be repeated" in outcome.err


@pytest.mark.parametrize(
    ("text", "arguments", "complaint"),
    [
        ('{"id": "a", "text": "t"}\n', ["no", "--embedder", "e"], "no such pool: 'no'; --create makes it"),
        ('{"id": "a", "text": "t"}\n', ["-no", "--embedder", "e", "--create"], "POOL: '-no' is not 1 to 128"),
        ('{"id": "a", "text": "t"}\n' * 2, ["p", "--embedder", "e"], "items.jsonl:2: id: 'a' is on line 1 already"),
        ('{"id": "a", "body": "t"}\n', ["p", "--embedder", "e"], "there is no such column among id, body"),
        ('{"id": "a", "vector": [1, 2, 3]}\n', ["p"], "has dimension 3; the pool has 2"),
    ],
)
def test_ingest_finds_what_is_wrong_before_it_embeds(fakes, cli, tmp_path, text, arguments, complaint):
    make_pool(fakes)
    path = tmp_path / "items.jsonl"
    path.write_text(text)
    name, *more = arguments
    outcome = cli("pool", "ingest", *more, "--", name, str(path))
    assert outcome.code == 1
    assert complaint in outcome.err
    assert (fakes.learner.texts, fakes.index.upserts, list(fakes.index.pools)) == ([], [], ["p"])


def test_a_pool_that_campaigns_use_is_deleted_with_yes_alone(fakes, cli):
    make_pool(fakes)
    fakes.index.pools["p"].campaigns.extend(["one", "two"])
    outcome = cli("pool", "delete", "p")
    assert outcome.code == 1
    assert outcome.err == "error: p is the pool of campaigns one, two; --yes deletes it nevertheless\n"
    assert cli("pool", "delete", "p", "--yes").code == 0


def test_pool_delete_asks_first(fakes, cli, monkeypatch):
    make_pool(fakes)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli("pool", "delete", "p").code == 1
    assert "p" in fakes.index.pools
    assert cli("pool", "delete", "p", "--yes").code == 0
    assert fakes.index.pools == {}


def test_campaign_create_sends_every_option(fakes, cli):
    outcome = cli(
        *("campaign", "create", "c", "--pool", "p", "--class", "no", "--class", "yes", "--budget", "500"),
        *("--strategy", "information_density", "--base", "margin", "--beta", "0.5", "--density-over", "pool"),
        *(
            "--policy",
            "seals",
            "--k",
            "30",
            "--max-candidates",
            "900",
            "--growth",
            "pick",
            "--expand-from",
            "yes",
            "--exploration",
            "0.1",
            "--fill",
            "none",
        ),
        *("--batch", "20", "--seed-size", "0", "--seed", "9", "--after-labels", "20", "--interval", "60"),
        *("--cron", "0 6 * * *", "--oracle", "dataset", "--metadata-field", "truth", "--lease", "90"),
        *("--evaluation-pool", "held", "--l2", "2", "--max-iterations", "50", "--class-weight", "balanced"),
    )
    assert outcome.code == 0, outcome.err
    spec = fakes.scheduler.campaigns["c"].spec
    assert spec == scheduler_pb2.CampaignSpec(
        name="c",
        pool="p",
        task=common_pb2.TASK_KIND_BINARY,
        classes=["no", "yes"],
        model=common_pb2.ModelSpec(
            name="logistic_regression",
            l2=2,
            max_iterations=50,
            class_weight=common_pb2.CLASS_WEIGHT_BALANCED,
            retrain=common_pb2.RETRAIN_SCRATCH,
        ),
        strategy=common_pb2.StrategySpec(
            name="information_density", base="margin", beta=0.5, density_over=common_pb2.DENSITY_OVER_POOL
        ),
        policy=common_pb2.PolicySpec(name="seals", k=30, max_candidates=900, growth=common_pb2.CANDIDATE_GROWTH_PICK),
        expand_from_classes=["yes"],
        batch_size=20,
        budget=500,
        seed=9,
        exploration=0.1,
        fill=scheduler_pb2.FILL_NONE,
        rule=scheduler_pb2.RoundRule(after_labels=20, interval_seconds=60, cron="0 6 * * *"),
        oracle=scheduler_pb2.OracleSpec(name="dataset", metadata_field="truth"),
        evaluation_pool="held",
        lease_seconds=90,
    )


def test_seed_set_and_batch_stay_within_a_small_budget(fakes, cli):
    assert cli("campaign", "create", "c", "--pool", "p", "--class", "a", "--class", "b", "--budget", "50").code == 0
    spec = fakes.scheduler.campaigns["c"].spec
    assert (spec.seed_size, spec.batch_size) == (50, 50)


def test_a_field_at_fault_is_told_by_its_option():
    fault = in_options(InvalidArgument("spec.rule.interval_seconds", "1 is not 5 to 9"))
    assert fault.message == "--interval: 1 is not 5 to 9"
    assert in_options(InvalidArgument("spec.budget", "9 is too little")).message == "--budget: 9 is too little"
    fault = in_options(InvalidArgument("spec.model.neural.epochs", "cnn has none"))
    assert fault.message == "--neural epochs: cnn has none"
    fault = in_options(InvalidArgument("spec.model.uncertainty.estimator", "is softmax"))
    assert fault.message == "--uncertainty estimator: is softmax"
    assert in_options(InvalidArgument("spec.model.validation_share", "x")).message == "--validation-share: x"
    assert in_options(InvalidArgument("spec.batch_share", "x")).message == "--batch-share: x"
    assert in_options(InvalidArgument("spec.model.neural", "x")).message == "spec.model.neural: x"


def test_campaign_create_reads_classes_and_task_from_the_metadata(fakes, cli, tmp_path):
    make_pool(fakes)
    path = tmp_path / "items.jsonl"
    path.write_text(
        '{"id": "a", "vector": [1, 2], "labels": ["z", "y"]}\n{"id": "b", "vector": [1, 2], "labels": "x"}\n'
    )
    assert cli("pool", "ingest", "p", str(path)).code == 0
    assert cli("campaign", "create", "c", "--pool", "p", "--classes-from-metadata", "labels", "--budget", "9").code == 0
    spec = fakes.scheduler.campaigns["c"].spec
    assert list(spec.classes) == ["x", "y", "z"]
    assert spec.task == common_pb2.TASK_KIND_MULTILABEL


def test_campaign_run_goes_on_until_the_budget_is_spent(fakes, cli):
    begin(cli, budget=30, oracle="dataset")
    outcome = cli("campaign", "run", "c", "--json")
    assert outcome.code == 0, outcome.err
    answer = json.loads(outcome.out)
    assert [one["number"] for one in answer["rounds"]] == [0, 1, 2]
    assert answer["rounds"][0]["quality"]["mean_average_precision"] is None  # NaN has no place in JSON
    assert answer["campaign"]["state"] == "completed"
    assert "no round is left" in cli("campaign", "run", "c").err


def test_campaign_run_stops_where_tasks_wait_for_people(fakes, cli):
    begin(cli, budget=30, oracle="external")
    outcome = cli("campaign", "run", "c")
    assert outcome.code == 0
    assert "10 tasks wait for labels" in outcome.err


def test_campaign_run_stops_after_the_rounds_asked_for(fakes, cli):
    begin(cli, budget=90, oracle="dataset")
    assert len(json.loads(cli("campaign", "run", "c", "--rounds", "2", "--json").out)["rounds"]) == 2


def test_the_services_own_words_reach_the_user_in_one_line(fakes, cli):
    begin(cli, budget=90, oracle="dataset")
    assert cli("campaign", "pause", "c").out == "campaign c is paused\n"
    outcome = cli("campaign", "run", "c")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == "error: campaign 'c' is paused"
    assert cli("campaign", "show", "nobody").err == "error: no such campaign: 'nobody'\n"


def test_watch_prints_one_json_object_an_event(fakes, cli):
    (line,) = cli("campaign", "watch", "c", "--json").out.splitlines()
    assert json.loads(line)["labels_arrived"] == {"accepted": 3, "labels": 0}
    assert "3 labels arrived" in cli("campaign", "watch", "c").out


def test_export_writes_json_lines_or_csv(fakes, cli, tmp_path):
    fakes.scheduler.labels = [scheduler_pb2.Label(item_id="a", classes=["x", "y"], annotator="me", sequence=4)]
    row = json.loads(cli("campaign", "export", "c").out)
    assert (row["id"], row["labels"], row["sequence"]) == ("a", ["x", "y"], 4)
    target = tmp_path / "labels.csv"
    outcome = cli("campaign", "export", "c", "-o", str(target), "--json")
    assert json.loads(outcome.out) == {"campaign": "c", "labels": 1, "file": str(target)}
    header, line = target.read_text().splitlines()
    assert header.startswith("id,labels,annotator")
    assert line.startswith('a,"[""x"", ""y""]",me')


def test_what_export_writes_submit_reads(fakes, cli, tmp_path):
    begin(cli, budget=30, oracle="external")
    given = {"a": ["x", "y"], "b": ["x"], "c": [], "d": ["[odd"]}
    fakes.scheduler.labels = [scheduler_pb2.Label(item_id=item, classes=some) for item, some in given.items()]
    for number, name in enumerate(("labels.csv", "labels.jsonl")):
        assert cli("campaign", "export", "c", "-o", str(tmp_path / name)).code == 0
        outcome = cli("labels", "submit", "c", "-f", str(tmp_path / name))
        assert outcome.code == 0, outcome.err
        request = fakes.scheduler.submitted[number]
        assert {label.item_id: list(label.classes) for label in request.labels} == given
    assert "\nb,x," in (tmp_path / "labels.csv").read_text()


def test_tasks_show_no_control_characters_and_no_endless_text(fakes, cli):
    begin(cli, budget=30, oracle="external")
    fakes.scheduler.tasks = [scheduler_pb2.Task(item_id="a\x1b[2J", text="\x9b\u202e" + "long " * 200)]
    outcome = cli("tasks", "next", "c")
    assert "a\\x1b[2J" in outcome.out
    assert not {"\x1b", "\x9b", "\u202e"} & set(outcome.out)
    assert outcome.out.count("long") < 70
    assert "…" in outcome.out
    assert "classes: a, b" in outcome.out


def test_where_no_task_is_open_it_is_told_how_many_are_leased(fakes, cli):
    begin(cli, budget=30, oracle="external")
    fakes.scheduler.tasks = []
    fakes.scheduler.campaigns["c"].leased_tasks = 20
    assert "no task is open; 20 are with annotators" in cli("tasks", "next", "c").err


def test_tasks_show_texts_as_they_are(fakes, cli):
    begin(cli, budget=30, oracle="external")
    outcome = cli("tasks", "next", "c", "-n", "5", "--annotator", "ann", "--lease", "60")
    assert "[hello]" in outcome.out
    (request,) = fakes.scheduler.leased
    assert (request.annotator, request.max_tasks, request.lease_seconds) == ("ann", 5, 60)


def test_a_class_that_holds_an_equals_sign_is_known_by_the_campaigns_classes(fakes, cli):
    begin(cli, budget=30, oracle="external")
    fakes.scheduler.campaigns["c"].spec.classes.append("x=1")
    assert cli("labels", "submit", "c", "a=b=x=1", "a=b").code == 0
    (request,) = fakes.scheduler.submitted
    assert {label.item_id: list(label.classes) for label in request.labels} == {"a=b": ["x=1"], "a": ["b"]}


def test_labels_come_from_words_or_a_file(fakes, cli, tmp_path):
    begin(cli, budget=30, oracle="external")
    assert cli("labels", "submit", "c", "a=x", "b=y=z", "b=w", "d=", "-a", "ann").code == 0
    (request,) = fakes.scheduler.submitted
    assert {label.item_id: list(label.classes) for label in request.labels} == {
        "a": ["x"],
        "b=y": ["z"],
        "b": ["w"],
        "d": [],
    }
    path = tmp_path / "labels.csv"
    path.write_text("id,labels\n" + "".join(f"i{n},x\n" for n in range(1_500)))
    assert json.loads(cli("labels", "submit", "c", "-f", str(path), "--json").out)["accepted"] == 1_500
    assert [len(request.labels) for request in fakes.scheduler.submitted[1:]] == [1_000, 500]


@pytest.mark.parametrize(
    "arguments",
    [
        ("pool", "create", "p"),
        ("pool", "frob"),
        ("pool", "create", "p", "--dimension", "0"),
        ("pool", "create", "p", "--dimension", "8", "--metric", "euclid"),
        ("pool", "ingest", "p", "/no/such/file.jsonl"),
        ("campaign", "create", "c", "--pool", "p", "--budget", "9"),
        ("campaign", "create", "c", "--pool", "p", "--budget", "9", "--class", "a", "--classes-from-metadata", "f"),
        ("campaign", "create", "c", "--pool", "p", "--budget", "9", "--class", "a", "--exploration", "2"),
        ("campaign", "export", "c", "--json"),
        ("labels", "submit", "c"),
        ("labels", "submit", "c", "no-equals-sign"),
        ("demo", "--embedder", "x"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_with_exit_code_2(fakes, cli, arguments):
    outcome = cli(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("--help`)")


def test_where_nothing_listens_the_error_is_quick_and_says_what_to_start(cli):
    outcome = cli("pool", "list", "--index", "127.0.0.1:1")
    assert outcome.code == 1
    assert outcome.err == 'error: nothing answers at 127.0.0.1:1: is "sealpool up" running?\n'
