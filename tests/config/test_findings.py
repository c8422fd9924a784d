"""Messages are printable and short, whatever they quote."""

import pytest

from nydusd.config.findings import printable, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ({}, "a table"),
        ([1], "a list"),
        (5, "5"),
        (1.5, "1.5"),
        (float("inf"), "inf"),
        pytest.param(1 << 20_000, "a number of 20001 bits", id="huge"),
        ("a\n", 'text "a\\n"'),
    ],
)
def test_what_came_is_told_in_a_few_words(value, text):
    assert shown(value) == text


@pytest.mark.parametrize("value", ["UNSPOKEN", 12345, ["UNSPOKEN"], {"UNSPOKEN": 1}, 1.5])
def test_a_secret_is_told_by_its_kind_only(value):
    text = shown(value, secret=True)

    assert "UNSPOKEN" not in text
    assert not any(each.isdigit() for each in text)


def test_a_long_text_is_cut():
    assert printable("x" * 1000) == "x" * 60 + "…"


def test_control_and_direction_characters_are_escaped():
    assert printable("\x1b\u202e\udcff") == r"\x1b\u202e\udcff"
