"""The file of Label Studio servers."""

from pathlib import Path

import pytest

from scheduler.label_studio.servers import read_servers
from sealpool.errors import InvalidArgument


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("hush-hush\n")
    return file


def write(folder: Path, text: str) -> Path:
    file = folder / "servers.yaml"
    file.write_text(text)
    return file


def test_no_file_is_no_server() -> None:
    assert read_servers(None) == {}


def test_a_token_is_read_from_its_file_and_never_shown(tmp_path: Path, token: Path) -> None:
    servers = read_servers(write(tmp_path, f"default: {{url: 'https://labels.example.org/', token_file: {token}}}"))
    assert servers["default"].token.get_secret_value() == "hush-hush"
    assert servers["default"].url == "https://labels.example.org"
    assert "hush" not in repr(servers)


def test_a_token_is_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_TOKEN", "hush-hush")
    servers = read_servers(write(tmp_path, "here: {url: 'http://127.0.0.1:8080', token_env: STUDIO_TOKEN}"))
    assert servers["here"].token.get_secret_value() == "hush-hush"
    assert servers["here"].ml_password.get_secret_value() == ""


def test_a_token_that_no_header_can_carry_is_refused_here_where_nobody_quotes_it(tmp_path: Path, token: Path) -> None:
    token.write_text("hush-hush\nand another")
    with pytest.raises(InvalidArgument, match="no header can carry") as caught:
        read_servers(write(tmp_path, f"a: {{url: 'http://x', token_file: {token}}}"))
    assert "hush" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("- a", "label_studio_servers", "mapping"),
        ("a: [", "label_studio_servers", "not YAML"),
        ("'bad name': {}", "label_studio_servers", "bad name"),
        ("a: {token_file: TOKEN}", "label_studio_servers.a.url", "required"),
        ("a: {url: 'ftp://x', token_file: TOKEN}", "label_studio_servers.a.url", "is not like https://host"),
        ("a: {url: 'http://u:p@x', token_file: TOKEN}", "label_studio_servers.a.url", "is not like https://host"),
        ("a: {url: 'http://x'}", "label_studio_servers.a", "give token_file or token_env"),
        ("a: {url: 'http://x', token: hush-hush}", "label_studio_servers.a.token", "token_file or token_env"),
        ("a: {url: 'http://x', token_file: TOKEN, token_env: X}", "label_studio_servers.a", "not both"),
        ("a: {url: 'http://x', token_env: UNSET_VARIABLE}", "label_studio_servers.a", "UNSET_VARIABLE is not set"),
        ("a: {url: 'http://x', token_file: /no/such}", "label_studio_servers.a", "cannot be read"),
        ("a: {url: 'http://x', token_file: TOKEN, ca: /no/such}", "label_studio_servers.a", "no such file"),
        ("a: {url: 'http://x', token_file: TOKEN, timeout_s: 0}", "label_studio_servers.a.timeout_s", "greater than 0"),
        ("a: {url: 'http://x', token_file: TOKEN, colour: red}", "label_studio_servers.a.colour", "not permitted"),
    ],
)
def test_a_wrong_server_is_told_by_its_field_and_no_secret(
    tmp_path: Path, token: Path, text: str, field: str, problem: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read_servers(write(tmp_path, text.replace("TOKEN", str(token))))
    assert refused.value.field == field
    assert problem in refused.value.message
    assert "hush" not in refused.value.message
