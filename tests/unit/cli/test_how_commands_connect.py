"""What the environment says of how the command line connects."""

from pathlib import Path

import pytest

from sealpool.cli.options import client_options
from sealpool.errors import InvalidArgument


def test_files_and_the_switch_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALPOOL_CA_CERTIFICATE", "/tls/ca.crt")
    monkeypatch.setenv("SEALPOOL_INSECURE", "True")
    assert client_options().ca_certificate == Path("/tls/ca.crt")
    assert client_options().insecure


@pytest.mark.parametrize("value", ["", "false"])
def test_a_token_goes_in_clear_only_where_somebody_said_so(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SEALPOOL_INSECURE", value)
    assert not client_options().insecure


def test_a_switch_that_is_neither_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALPOOL_INSECURE", "yes")
    with pytest.raises(InvalidArgument, match="SEALPOOL_INSECURE: 'yes' is neither true nor false"):
        client_options()
