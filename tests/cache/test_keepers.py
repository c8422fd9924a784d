import threading

from nydusd.cache.keepers import WAITING_EACH, Keepers


def test_what_is_offered_is_kept_in_order_and_the_end_is_told_once():
    kept, ends = [], []
    keepers = Keepers(1, kept.append, lambda: ends.append(len(kept)))
    keepers.start()
    for number in range(WAITING_EACH):
        assert keepers.offer(number)
    keepers.finish()
    for thread in keepers.threads:
        thread.join(20)
        assert not thread.is_alive()
    assert kept == list(range(WAITING_EACH))
    assert ends == [WAITING_EACH]


def test_a_full_line_takes_no_more_until_somebody_is_through():
    gate, begun = threading.Event(), threading.Event()

    def keep(_filling):
        begun.set()
        assert gate.wait(20)

    keepers = Keepers(1, keep, lambda: None)
    keepers.start()
    assert keepers.offer("first")
    assert begun.wait(20)
    assert all(keepers.offer(number) for number in range(WAITING_EACH))
    assert not keepers.offer("one too many")
    gate.set()
    keepers.finish()
    for thread in keepers.threads:
        thread.join(20)
        assert not thread.is_alive()


def test_there_are_no_more_of_them_than_asked_for():
    assert len(Keepers(1, print, print).threads) == 1
