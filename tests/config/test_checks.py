"""Values that no backend can work with are told when the configuration is read."""

import base64
import json

import pytest

from nydusd.config.load import examine
from tests.disclosure import MARK, login, secret

WHOLE = {
    "host": "h",
    "repo": "team/app",
    "endpoint": "e",
    "bucket_name": "b",
    "region": "r",
}


def errors(kind, **changed):
    """What is wrong with a backend of *kind*, in both versions of the format."""
    table = {**WHOLE, **changed}
    v1 = {"device": {"backend": {"type": kind, "config": table}, "cache": {}}, "mode": "direct"}
    v2 = {"version": 2, "backend": {"type": kind, kind: table}, "cache": {}, "rafs": {}}
    found = [
        [text.removeprefix(f"{start}.") for text in examine(json.dumps(config)).errors]
        for config, start in ((v1, "device.backend.config"), (v2, f"backend.{kind}"))
    ]
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    ("kind", "key", "value", "reason"),
    [
        ("registry", "auth", f"{MARK} !", "Invalid base64"),
        ("registry", "auth", f"{login('user', 'password')}\n", "Invalid base64"),
        ("registry", "auth", "dXNlcjp3b3Jk\u00e9", "Invalid base64"),
        ("registry", "auth", base64.b64encode(MARK.encode()).decode(), "user:password expected"),
        ("registry", "registry_token", secret("token") + "\r\nX: y", "a line break"),
        ("registry", "registry_token", secret("token") + "\n", "a line break"),
        ("registry", "registry_token", secret("t\u00e9"), "no header may have"),
        ("registry", "repo", "team/my app", "no repository's name"),
        ("registry", "repo", "team/app?x", "no repository's name"),
        ("registry", "repo", "team/app\n", "no repository's name"),
        ("oss", "bucket_name", "images/pre", "object_prefix"),
        ("s3", "bucket_name", "images/pre", "object_prefix"),
        ("s3", "bucket_name", "my images", "no bucket's name"),
        ("oss", "bucket_name", "images#1", "no bucket's name"),
    ],
)
def test_what_no_server_would_take_is_told_with_key_and_reason(kind, key, value, reason):
    (error,) = errors(kind, **{key: value})

    assert error.startswith(f"{key}: ")
    assert reason in error
    assert MARK not in error


@pytest.mark.parametrize("kind", ["oss", "s3"])
@pytest.mark.parametrize(
    ("given", "missing"),
    [("access_key_id", "access_key_secret"), ("access_key_secret", "access_key_id")],
)
def test_one_half_of_an_access_key_is_told_with_the_other(kind, given, missing):
    assert errors(kind, **{given: secret("half")}) == [f"{missing}: missing, and {given} is set"]
    assert not errors(kind, access_key_id="", access_key_secret="")
    assert not errors(kind, access_key_id=secret("id"), access_key_secret=secret("key"))


@pytest.mark.parametrize(
    ("headers", "place"),
    [
        ({"X Trace": "on"}, "the name of header 1"),
        ({"X-Trace": "on", "": "y"}, "the name of header 2"),
        ({"X-Trace:": "on"}, "the name of header 1"),
        ({"X-One": "1", "X-Trace": secret("a") + "\r\nX: y"}, "the value of header 2"),
        ({"X-Trace": secret("a") + "\n"}, "the value of header 1"),
        ({"X-Trace": secret("\u00e9")}, "the value of header 1"),
    ],
)
def test_headers_of_a_mirror_that_cannot_be_sent_are_told_by_their_place(headers, place):
    (error,) = errors("registry", mirrors=[{"host": "http://m", "headers": headers}])

    assert error.startswith(f"mirrors[0].headers: {place} ")
    assert MARK not in error


def test_all_of_them_are_told_at_once():
    mirror = {"host": "http://m", "headers": {"a b": "c"}}
    found = errors("registry", auth="!", registry_token="\n", repo=" ", mirrors=[mirror])

    assert sorted(text.partition(":")[0] for text in found) == [
        "auth",
        "mirrors[0].headers",
        "registry_token",
        "repo",
    ]


def test_what_servers_may_take_is_left_to_them():
    for auth in (None, "", login("user", "password"), base64.b64encode(b":").decode()):
        assert not errors("registry", auth=auth)
    for token in (None, "", "a.b-c_d~e+f/g==", "two words"):
        assert not errors("registry", registry_token=token)
    for repo in ("app", "a/b/c", "Team/App_1.2-x", "/team/app/"):
        assert not errors("registry", repo=repo)
    for bucket in ("images", "Images_1.x-y", "tenant:images"):
        assert not errors("s3", bucket_name=bucket)
    headers = {"X-Trace": "on\tor off", "x.y!": ""}
    assert not errors("registry", mirrors=[{"host": "http://m", "headers": headers}])
