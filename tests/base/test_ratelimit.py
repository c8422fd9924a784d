import threading

from nydusd.base.ratelimit import TokenBucket


def test_a_burst_passes_at_once():
    bucket = TokenBucket(1, 100)
    assert all(bucket.take(10, threading.Event()) for _ in range(10))


def test_an_empty_bucket_holds_back_until_it_is_stopped():
    bucket = TokenBucket(0, 10)
    stop = threading.Event()
    assert bucket.take(100, stop)
    results = []
    waiter = threading.Thread(target=lambda: results.append(bucket.take(1, stop)))
    waiter.start()
    stop.set()
    waiter.join()
    assert results == [False]


def test_tokens_come_back_with_time():
    bucket = TokenBucket(1000, 10)
    stop = threading.Event()
    assert bucket.take(50, stop)
    assert bucket.take(1, stop)  # after one step of 100 tokens


def test_a_stopped_bucket_gives_nothing():
    stop = threading.Event()
    stop.set()
    assert not TokenBucket(10, 10).take(1, stop)


def test_a_charge_is_a_debt_that_the_next_one_waits_for():
    bucket = TokenBucket(0, 10)
    stop = threading.Event()
    bucket.charge(50)
    results = []
    waiter = threading.Thread(target=lambda: results.append(bucket.take(1, stop)))
    waiter.start()
    stop.set()
    waiter.join()
    assert results == [False]
