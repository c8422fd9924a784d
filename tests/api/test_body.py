import pytest

from nydusd.api.body import field, optional_field, read_object, strings
from nydusd.api.errors import ApiError


def message(body, name="log_level", kind=str):
    with pytest.raises(ApiError) as raised:
        field(body, read_object(body), name, kind)
    assert raised.value.status == 400
    return raised.value.message


def test_a_missing_field_is_told_as_the_reference_does():
    assert message(b'{"x":1}') == (
        'ParseBody(Error("missing field `log_level`", line: 1, column: 7))'
    )


def test_a_field_of_another_type_is_told_as_the_reference_does():
    assert message(b'{"registry_auth":3}', "registry_auth") == (
        'ParseBody(Error("invalid type: integer `3`, expected a string", line: 1, column: 18))'
    )


@pytest.mark.parametrize(
    "body",
    [
        b"nope",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'{"a":}',
        b"\xff",
        b"[" * 50000,
        b'{"a":1' + b"0" * 5000,
    ],
)
def test_what_is_no_object_is_a_parse_error(body):
    with pytest.raises(ApiError, match=r"^ParseBody\(Error\("):
        read_object(body)


def test_an_optional_field_may_be_missing_or_null():
    body = b'{"a":null}'

    assert optional_field(body, read_object(body), "a", list, []) == []
    assert optional_field(body, read_object(body), "b", list, [1]) == [1]


def test_a_list_of_strings_has_nothing_else_in_it():
    assert strings(b"", ["a"]) == ("a",)
    with pytest.raises(ApiError, match="expected a string"):
        strings(b"", ["a", 1])
