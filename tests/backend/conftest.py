"""What tests of backends open, closed when the test ends."""

from contextlib import ExitStack

import pytest

from nydusd.config.model import ObjectStorage


@pytest.fixture
def close_later():
    """A function that gives back the backend it is given, which is closed when the test ends."""
    with ExitStack() as stack:

        def keep(backend):
            stack.callback(backend.close)
            return backend

        yield keep


@pytest.fixture
def open_bucket(close_later):
    """A function that opens the bucket `bkt`, below `pre/`, with a class and its settings."""

    def make(kind, **settings):
        usual = {"bucket_name": "bkt", "scheme": "http", "object_prefix": "pre/"}
        return close_later(kind(ObjectStorage(**{**usual, **settings})))

    return make
