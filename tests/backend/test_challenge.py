import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.backend.challenge import parse_challenges, wanted_challenge


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"',
            "bearer",
            {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"},
        ),
        ("BEARER Realm=x , service = y", "bearer", {"realm": "x", "service": "y"}),
        ('Basic realm="r", Bearer realm="b"', "bearer", {"realm": "b"}),
        ('Bearer realm="b", Basic realm="r"', "bearer", {"realm": "b"}),
        ('Negotiate, Basic realm="a \\"b\\""', "basic", {"realm": 'a "b"'}),
        ('Bearer service="s", Basic', "basic", {}),
        ("basic", "basic", {}),
    ],
)
def test_the_challenge_that_can_be_met(header, scheme, parameters):
    assert wanted_challenge(header) == (scheme, parameters)


@pytest.mark.parametrize("header", ["", "Negotiate", "Bearer", ",,,", '"', "=", 'realm="x"'])
def test_no_challenge_that_can_be_met(header):
    assert wanted_challenge(header) is None


@given(st.text(max_size=300))
def test_any_text_is_read_to_an_end(text):
    for challenge in parse_challenges(text):
        assert challenge.scheme == challenge.scheme.lower()
