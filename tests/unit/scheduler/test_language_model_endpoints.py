"""The file of endpoints is checked whole, and keys stay out of sight."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from scheduler.app import main
from scheduler.oracles.llm.endpoints import Endpoint, load_endpoints
from sealpool.errors import InvalidArgument

KEY = "sk-very-secret"


def load(tmp_path: Path, text: str, **environment: str) -> dict[str, Endpoint]:
    path = tmp_path / "endpoints.yaml"
    path.write_text(text)
    return dict(load_endpoints(path, environment=environment))


def test_endpoints_are_read_with_their_keys_and_defaults(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    found = load(
        tmp_path,
        "default: {base_url: 'https://x/v1', api_key_file: key, price_in: 2, price_out: 8}\n"
        "local: {base_url: 'http://127.0.0.1:8000/v1', max_concurrency: 2}\n"
        "other: {base_url: 'http://[::1]:8000/v1', api_key_env: THE_KEY}\n",
        THE_KEY="from-the-environment",
    )
    assert found["default"].api_key.get_secret_value() == KEY
    assert found["other"].api_key.get_secret_value() == "from-the-environment"
    assert found["local"].api_key.get_secret_value() == ""
    assert found["local"].max_concurrency == 2
    assert found["default"].cost(tokens_in=1_000_000, tokens_out=500_000) == 6
    assert found["default"].has_prices
    assert not found["local"].has_prices


def test_a_key_shows_in_no_repr_and_no_dump(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    endpoint = load(tmp_path, "default: {base_url: 'https://x/v1', api_key_file: key}")["default"]
    assert KEY not in repr(endpoint) + str(endpoint) + repr(endpoint.model_dump()) + endpoint.model_dump_json()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- a\n", "does not map names"),
        ("default: 3\n", "does not map names"),
        ("default: {base_url: [\n", "is not YAML, line"),
        ("3: {base_url: 'https://x/v1'}\n", "3 is no name"),
        ("'a b': {base_url: 'https://x/v1'}\n", "llm_endpoints"),
        ("default: {}\n", "endpoint 'default': base_url: Field required"),
        ("default: {base_url: 'ftp://x'}\n", "base_url: is not http"),
        ("default: {base_url: 'https://me:pass@x/v1'}\n", "base_url: has a user"),
        ("default: {base_url: 'https://x/v1', max_concurency: 3}\n", "max_concurency: Extra"),
        ("default: {base_url: 'https://x/v1', max_concurrency: 0}\n", "max_concurrency: Input should be greater"),
        ("default: {base_url: 'https://x/v1', requests_per_minute: -1}\n", "requests_per_minute"),
        ("default: {base_url: 'https://x/v1', price_in: .nan}\n", "price_in"),
        ("default: {base_url: 'https://x/v1', timeout_s: 0}\n", "timeout_s"),
        ("default: {base_url: 'https://x/v1', answer_tokens_field: stop}\n", "answer_tokens_field"),
        ("default: {base_url: 'https://x/v1', api_key: sk-very-secret}\n", "a key is not written here"),
        ("default: {base_url: 'https://x/v1', api_key_env: NOT_SET}\n", "NOT_SET is not set"),
        ("default: {base_url: 'https://x/v1', api_key_file: nowhere}\n", "api_key_file: cannot be read"),
        ("default: {base_url: 'https://x/v1', api_key_env: A, api_key_file: b}\n", "give one"),
        ("default: {base_url: 'https://x/v1', api_key_env: BROKEN}\n", "no header can carry"),
        ("default: {base_url: 'http://example.org/v1', api_key_env: KEY}\n", "sends the key in clear"),
    ],
)
def test_what_is_wrong_is_said_without_the_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as caught:
        load(tmp_path, text, KEY=KEY, BROKEN=f"{KEY}\x01", A="a")
    assert KEY not in caught.value.message
    assert caught.value.field == "llm_endpoints"


def test_a_key_goes_in_clear_only_where_that_is_said(tmp_path: Path) -> None:
    told = "default: {base_url: 'http://example.org/v1', api_key_env: KEY, insecure: true}\n"
    assert load(tmp_path, told, KEY=KEY)["default"].insecure
    assert load(tmp_path, "default: {base_url: 'http://example.org/v1'}\n")


def test_no_file_means_no_endpoints_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    assert load_endpoints(None) == {}
    with pytest.raises(InvalidArgument, match=r"nowhere\.yaml"):
        load_endpoints(tmp_path / "nowhere.yaml")


def test_a_wrong_file_stops_the_start_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text("default: {base_url: 'https://x/v1', timeout_s: soon}\n")
    flags = ["--data-dir", str(tmp_path / "d"), "--listen", "127.0.0.1:0", "--metrics-listen", ""]
    with pytest.raises(SystemExit, match=r"endpoint 'default': timeout_s") as caught:
        main([*flags, "--llm-endpoints", str(path)])
    assert len(str(caught.value.code).splitlines()) == 1


def test_an_endpoint_does_not_change() -> None:
    endpoint = Endpoint(base_url="https://x/v1")
    with pytest.raises(ValidationError):
        endpoint.timeout_s = 3  # type: ignore[misc]
