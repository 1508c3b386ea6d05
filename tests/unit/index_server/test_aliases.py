import pytest

from index_server.aliases import Aliases
from sealpool.errors import FailedPrecondition, ResourceExhausted


@pytest.fixture
def path(tmp_path):
    return tmp_path / "aliases.json"


def test_an_alias_is_switched_and_forgotten_and_tells_what_it_stood_for(path):
    aliases = Aliases(path)
    assert aliases.pool_of("live") == ""
    assert aliases.set("live", "pool@1") == ""
    assert aliases.set("live", "pool@2") == "pool@1"
    assert aliases.pool_of("live") == "pool@2"
    aliases.delete("live")
    assert aliases.pool_of("live") == ""


def test_a_pool_has_its_aliases_by_name(path):
    aliases = Aliases(path)
    for alias, pool in (("z", "p"), ("a", "p"), ("m", "other")):
        aliases.set(alias, pool)
    assert aliases.of("p") == ["a", "z"]
    assert aliases.of("none") == []


def test_aliases_are_on_disk_before_they_are_so(path, monkeypatch):
    Aliases(path).set("live", "p")
    aliases = Aliases(path)
    assert aliases.pool_of("live") == "p"

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("index_server.aliases.write_durably", refuse)
    for change in (lambda: aliases.set("live", "q"), lambda: aliases.set("new", "p"), lambda: aliases.delete("live")):
        with pytest.raises(ResourceExhausted):
            change()
    assert (aliases.pool_of("live"), aliases.of("p")) == ("p", ["live"])
    assert Aliases(path).of("p") == ["live"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
def test_a_file_that_cannot_be_read_is_said_to_be_so(path, content):
    path.write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"aliases\.json"):
        Aliases(path)
