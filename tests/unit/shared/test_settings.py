"""Where settings come from, and which are refused."""

from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from sealpool.runtime.addresses import host_of, is_loopback
from sealpool.runtime.settings import ServiceSettings, load_settings


class ExampleSettings(ServiceSettings):
    """Settings of no service."""

    model_config = SettingsConfigDict(env_prefix="SEALPOOL_EXAMPLE_")


def load(*argv: str) -> ExampleSettings:
    return load_settings(ExampleSettings, argv, program="example")


def test_flags_win_over_the_environment_which_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("grace_s: 1\nmax_concurrent_calls: 11\nlog_level: warning\n")
    monkeypatch.setenv("SEALPOOL_EXAMPLE_MAX_CONCURRENT_CALLS", "12")
    monkeypatch.setenv("SEALPOOL_EXAMPLE_GRACE_S", "2")
    settings = load("--config", str(config), "--grace-s", "3")
    assert (settings.grace_s, settings.max_concurrent_calls, settings.log_level) == (3, 12, "warning")


def test_without_anything_the_defaults_hold() -> None:
    assert load().max_message_bytes == 16 << 20


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--max-concurrent-calls", "0"], "max_concurrent_calls"),
        (["--log-level", "loud"], "log_level"),
        (["--listen", "0.0.0.0:7301"], "beyond loopback"),
        (["--listen", "[::]:7301"], "beyond loopback"),
        (["--tls-key", "k.pem"], "go together"),
        (["--tls-client-ca", "c.pem"], "needs tls_certificate"),
        (["--config", "nowhere.yaml"], "no such file"),
    ],
)
def test_a_bad_setting_stops_the_start_with_a_line_that_names_it(argv: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said) as caught:
        load(*argv)
    assert str(caught.value).startswith("example: ")


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("gracee_s: 1\n")
    with pytest.raises(SystemExit, match="gracee_s"):
        load(f"--config={config}")


def test_help_tells_every_setting_and_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load("--help")
    told = capsys.readouterr().out
    assert caught.value.code == 0
    assert "--config FILE" in told
    for name in ServiceSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in told


def test_one_client_has_three_quarters_of_the_calls_unless_told_otherwise() -> None:
    assert load().calls_per_client == 48
    assert load("--max-concurrent-calls", "1").calls_per_client == 1
    assert load("--max-calls-per-client", "5").calls_per_client == 5


def test_beyond_loopback_needs_tls_or_tokens_or_a_word() -> None:
    assert load("--listen", "0.0.0.0:7301", "--tokens-file", "t.json").tokens_file
    assert load("--listen", "0.0.0.0:7301", "--insecure").insecure
    assert load("--listen", "0.0.0.0:7301", "--tls-certificate", "c.pem", "--tls-key", "k.pem").tls_key


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().grace_s = 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "127.9.9.9:1",
        "[::1]:1",
        "localhost:1",
        "unix:/run/x.sock",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1",
    ],
)
def test_loopback_addresses_are_known(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "host.example:1", "dns:///host.example:1", "localhost.example:1", ""],
)
def test_other_addresses_are_not_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:5000", "ipv4:10.0.0.1"),
        ("ipv6:[::1]:5000", "ipv6:[::1]"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
    ],
)
def test_a_peer_is_told_by_its_host(peer: str, host: str) -> None:
    assert host_of(peer) == host
