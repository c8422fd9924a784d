import threading

import pytest

from nydusd.cache import quota as module
from nydusd.cache.quota import Quota


@pytest.fixture
def asked():
    return []


@pytest.fixture
def quota(asked):
    made = Quota(1000, lambda: asked.append(1))
    made.measured(made.begin(), 400)
    return made


def test_what_is_left_can_be_taken_and_no_more(quota):
    assert quota.take(600)
    assert not quota.take(1)


def test_nothing_can_be_taken_before_the_directory_is_measured():
    assert not Quota(1000, lambda: None).take(1)


def test_a_write_that_failed_gives_back_what_it_took(quota):
    assert quota.take(600)
    quota.give(600, written=False)
    assert quota.take(600)


def test_what_is_written_while_the_directory_is_measured_is_counted(quota):
    assert quota.take(100)
    begun = quota.begin()
    assert quota.take(200)
    quota.give(200, written=True)
    quota.measured(begun, 400)  # neither of the two is in it

    assert not quota.take(301)
    assert quota.take(300)


def test_room_is_asked_for_before_there_is_none(quota, asked):
    assert quota.take(540)
    assert not asked
    assert quota.take(20)
    assert asked
    assert quota.short


def test_who_finds_no_room_waits_until_some_is_made(monkeypatch, asked):
    monkeypatch.setattr(module, "WAIT_SECONDS", 30)
    wanted = threading.Event()
    quota = Quota(1000, wanted.set)
    quota.measured(quota.begin(), 900)
    taken = []
    writer = threading.Thread(target=lambda: taken.append(quota.take(300, wait=True)))
    writer.start()
    assert wanted.wait(20)
    assert quota.goal(90) == 700  # or the write would not fit
    quota.measured(quota.begin(), 700)
    writer.join(20)

    assert taken == [True]
    assert quota.goal(90) == 900


def test_a_reader_s_bytes_are_given_up_at_once_and_room_is_made_for_the_next(quota, asked):
    assert not quota.take(601)
    assert asked
    assert quota.goal(90) == 399


def test_nobody_waits_where_nothing_may_go(quota, asked, monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECONDS", 1000)
    quota.measured(quota.begin(), 900, in_use=True)

    assert not quota.take(101, wait=True)
    assert quota.take(100)
    assert not asked


def test_what_is_longer_than_the_limit_never_fits(quota, asked, monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECONDS", 1000)
    assert not quota.take(1001, wait=True)
    assert not asked
