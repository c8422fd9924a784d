"""The table of keys fits the model and the page that explains it."""

import json
from pathlib import Path

import pytest

from nydusd.config import model, sections
from nydusd.config.load import examine
from nydusd.config.schema import Section

ALL = {name: value for name, value in vars(sections).items() if isinstance(value, Section)}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations" / "config.md"


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_section_fills_its_part_of_the_model_with_its_defaults(name):
    section = ALL[name]
    made_from = {key.attribute for key in section.keys} | {part for part, _ in section.inline}
    fields = set(section.make._fields)
    # Not in the file, or of one of two formats that share a part.
    absent = {"Connection": {"headers"}, "ObjectStorage": {"region"}}
    left_out = absent.get(section.make.__name__, set())

    assert fields - left_out <= made_from <= fields
    for key in section.keys:
        default = section.make._field_defaults.get(key.attribute)
        if not key.required and default is not None:
            assert key.default == default, key.name


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_key_is_explained(name):
    text = PAGE.read_text()

    for key in ALL[name].keys:
        assert f"{key.name}`" in text or f".{key.name}." in text
        assert not key.v1 or f"`{key.v1}`" in text


def test_every_secret_of_the_model_is_kept_out_of_messages():
    keys = {(section.make, key.attribute): key for section in ALL.values() for key in section.keys}
    for part, secrets in model.SECRETS.items():
        for field, mark in secrets.items():
            key = keys.get((part, field))
            if key is not None and mark != "url":
                assert key.secret, (part, field)


def test_a_scheduler_is_refused_with_what_to_do_instead():
    proxy = {"url": "http://127.0.0.1:4001", "dragonfly_scheduler_endpoint": "http://secret:8002"}
    config = {"host": "registry.example", "repo": "app", "proxy": proxy}
    backend = {"type": "registry", "config": config}
    text = json.dumps({"device": {"backend": backend, "cache": {}}, "mode": "direct"})

    (error,) = examine(text).errors

    assert error.endswith(
        "proxy.dragonfly_scheduler_endpoint: is not supported: leave it out, and all goes through"
        " the HTTP proxy at url"
    )
    assert "secret" not in error
