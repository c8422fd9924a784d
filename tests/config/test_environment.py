"""Credentials and headers from the environment."""

from nydusd.config import model
from nydusd.config.environment import request_headers, with_environment

REGISTRY = model.Config(
    backend=model.Backend("registry", registry=model.Registry("h", "r", auth="a"))
)


def test_credentials_of_the_environment_win_over_the_file():
    changed = with_environment(REGISTRY, {"IMAGE_PULL_AUTH": "dTpw"})

    assert changed.backend.registry.auth == "dTpw"


def test_an_empty_environment_changes_nothing():
    assert with_environment(REGISTRY, {"PATH": "/bin"}) == REGISTRY
    assert with_environment(model.Config(), {"IMAGE_PULL_AUTH": "x"}) == model.Config()


def test_headers_of_the_environment_are_kept_as_they_are_written():
    changed = with_environment(REGISTRY, {"NYDUS_HEADER_X_Foo": "bar", "NYDUS_HEADER_A": ""})

    assert changed.backend.registry.connection.headers == (("A", ""), ("X_Foo", "bar"))


def test_a_header_that_would_start_another_one_is_left_out(caplog):
    environ = {"NYDUS_HEADER_A": "b\r\nHost: evil", "NYDUS_HEADER_": "x", "NYDUS_HEADER_a b": "c"}

    assert request_headers(environ) == ()
    assert len(caplog.messages) == 3
    assert all(message.isprintable() for message in caplog.messages)
