import threading

import pytest

from nydusd.cache.keepers import WAITING_EACH, Keepers


def test_what_is_offered_is_kept_in_order_and_the_end_is_told_once():
    kept, ends = [], []
    keepers = Keepers(1, kept.append, lambda: ends.append(len(kept)))
    keepers.start()
    for number in range(WAITING_EACH):
        assert keepers.offer(number)
    keepers.finish()
    for thread in keepers.threads:
        thread.join(60)
        assert not thread.is_alive()
    assert kept == list(range(WAITING_EACH))
    assert ends == [WAITING_EACH]


def test_a_full_line_takes_no_more_until_somebody_is_through():
    gate, begun = threading.Event(), threading.Event()

    def keep(_filling):
        begun.set()
        assert gate.wait(60)

    keepers = Keepers(1, keep, lambda: None)
    keepers.start()
    assert keepers.offer("first")
    assert begun.wait(60)
    assert all(keepers.offer(number) for number in range(WAITING_EACH))
    assert not keepers.offer("one too many")
    gate.set()
    keepers.finish()
    for thread in keepers.threads:
        thread.join(60)
        assert not thread.is_alive()


def test_there_are_no_more_of_them_than_asked_for():
    assert len(Keepers(1, print, print).threads) == 1


def joined(keepers):
    for thread in keepers.threads:
        if thread.ident is not None:
            thread.join(60)
            assert not thread.is_alive()


def test_what_was_taken_over_is_kept_by_a_thread_whose_warm_up_fails(monkeypatch, caplog):
    def broken():
        raise MemoryError("no room for a context")

    monkeypatch.setattr("nydusd.cache.keepers.warm_up", broken)
    kept, ends = [], []
    keepers = Keepers(2, kept.append, lambda: ends.append(len(kept)))
    for number in range(WAITING_EACH):
        assert keepers.offer(number)
    keepers.start()
    keepers.finish()
    joined(keepers)

    assert sorted(kept) == list(range(WAITING_EACH))
    assert ends == [WAITING_EACH]
    assert "no room for a context" in caplog.text


def no_more_threads():
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("finished_before", [False, True])
def test_what_was_offered_is_kept_where_no_thread_begins(monkeypatch, caplog, finished_before):
    kept, ends = [], []
    keepers = Keepers(1, kept.append, lambda: ends.append(len(kept)))
    monkeypatch.setattr(keepers.threads[0], "start", no_more_threads)
    assert keepers.offer("early")
    if finished_before:
        keepers.finish()
    keepers.start()

    assert kept == ["early"]
    if not finished_before:
        assert not keepers.offer("nobody would keep it")
        keepers.finish()
    assert ends == [1]
    assert "can't start new thread" in caplog.text


def test_those_that_began_keep_all_where_the_system_gives_no_more(monkeypatch, caplog):
    monkeypatch.setattr("nydusd.cache.keepers.os.sched_getaffinity", lambda _: range(3))
    kept, ends = [], []
    keepers = Keepers(3, kept.append, lambda: ends.append(len(kept)))
    monkeypatch.setattr(keepers.threads[1], "start", no_more_threads)
    keepers.start()
    assert all(keepers.offer(number) for number in range(WAITING_EACH))
    keepers.finish()
    joined(keepers)

    assert kept == list(range(WAITING_EACH))
    assert ends == [WAITING_EACH]
    assert "only 1 threads" in caplog.text
