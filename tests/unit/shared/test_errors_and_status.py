"""The error tree and the one table to gRPC status."""

import inspect
from urllib.parse import quote

import grpc
import pytest

from sealpool import errors
from sealpool.client.connection import _CODES
from sealpool.runtime.status import STATUS_OF, details_of, status_of, trailing_metadata_of


def leaves() -> list[type[errors.SealpoolError]]:
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]
    return [cls for cls in classes if issubclass(cls, errors.SealpoolError) and cls is not errors.SealpoolError]


def test_every_error_has_a_status_of_its_own() -> None:
    assert set(STATUS_OF) == set(leaves())
    assert len(set(STATUS_OF.values())) == len(STATUS_OF)


def test_the_client_raises_what_the_service_raised() -> None:
    for cls, code in STATUS_OF.items():
        assert _CODES.get(code, errors.InternalError) is cls


def test_the_tree_in_the_docstring_names_every_error() -> None:
    for cls in leaves():
        assert f"─ {cls.__name__} " in (errors.__doc__ or "")


def test_a_subclass_is_told_as_the_error_it_extends() -> None:
    class NoSuchPool(errors.NotFound):
        pass

    error = NoSuchPool("pool", "x")
    assert status_of(error) is grpc.StatusCode.NOT_FOUND
    assert trailing_metadata_of(error) == (("sealpool-error", "NotFound"), ("sealpool-field", "pool"))


def test_many_unknown_names_are_counted_and_not_all_shown() -> None:
    error = errors.NotFound("item", *(f"i{number}" for number in range(8)))
    assert error.message == "no such item: 'i0', 'i1', 'i2', 'i3', 'i4' and 3 more"


def test_when_to_try_again_is_told_where_it_is_known() -> None:
    full = errors.ResourceExhausted("memory", limit=1, setting="max_memory_bytes", retry_after_s=2)
    assert dict(trailing_metadata_of(full)) == {
        "sealpool-error": "ResourceExhausted",
        "sealpool-field": "max_memory_bytes",
        "sealpool-retry-after-seconds": "2.000",
        "grpc-retry-pushback-ms": "2000",
    }
    assert dict(trailing_metadata_of(errors.Unavailable("loading"))) == {"sealpool-error": "Unavailable"}


@pytest.mark.parametrize("text", ["x" * 4096, "ü" * 300, "short", ""])
def test_a_message_that_can_be_sent_is_sent_as_it_is(text: str) -> None:
    assert details_of(errors.Unavailable(text)) == text


@pytest.mark.parametrize("character", ["x", "ü", "😀", "%", "\n", "\0", "\udcff"])
def test_a_message_is_cut_to_what_a_call_may_end_with(character: str) -> None:
    details = details_of(errors.Unavailable("pool: " + character * 1_000_000))
    assert details.startswith("pool: ")
    assert details.endswith("…")
    assert 4000 < len(quote(details, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")) < 4200


def test_a_field_that_is_no_name_is_not_sent_and_a_long_one_is_cut() -> None:
    for field in ("ü", "a\nb", ""):
        assert dict(trailing_metadata_of(errors.Unavailable("x", field=field))) == {"sealpool-error": "Unavailable"}
    assert len(dict(trailing_metadata_of(errors.Unavailable("x", field="f" * 10_000)))["sealpool-field"]) == 200
