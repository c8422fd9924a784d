"""What the kernel is asked to do with requests that a former owner has taken."""

import errno

import pytest

from nydusd.fuse import channel, drain

CONNECTION = 7


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A kernel whose answer to FUSE_NOTIFY_RESEND is the last of a list that counts the orders."""
    orders: list[int] = []
    answers = [0]

    def resend() -> int:
        orders.append(1)
        return answers[-1]

    monkeypatch.setattr(channel, "ask_to_resend", resend)
    monkeypatch.setattr(drain, "CONNECTIONS", tmp_path)
    (tmp_path / str(CONNECTION)).mkdir()
    return orders, answers, tmp_path / str(CONNECTION)


def test_none_asks_for_nothing(kernel):
    orders, _, folder = kernel
    drain.drain("none", CONNECTION)
    assert not orders
    assert not list(folder.iterdir())


def test_resend_is_a_notification(kernel):
    orders, _, folder = kernel
    drain.drain("resend", CONNECTION)
    assert orders == [1]
    assert not list(folder.iterdir())


def test_a_kernel_without_the_notification_is_asked_through_its_file(kernel):
    _, answers, folder = kernel
    answers.append(-errno.EINVAL)
    (folder / "resend").touch()
    drain.drain("resend", CONNECTION)
    assert (folder / "resend").read_text() == "1"


def test_a_kernel_that_can_neither_is_told_of(kernel, caplog):
    _, answers, _ = kernel
    answers.append(-errno.EINVAL)
    drain.drain("resend", -1)
    assert "Failed to drain fuse requests: Invalid argument" in caplog.text


def test_flush_writes_to_the_kernels_file(kernel):
    orders, _, folder = kernel
    (folder / "flush").touch()
    drain.drain("flush", CONNECTION)
    assert (folder / "flush").read_text() == "1"
    assert not orders


def test_a_kernel_that_cannot_flush_sends_again_instead(kernel, caplog):
    orders, _, _ = kernel
    drain.drain("flush", -1)
    assert orders == [1]
    assert "cannot flush" in caplog.text
