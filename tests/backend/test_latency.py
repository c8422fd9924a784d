from nydusd.backend.latency import FEWEST, LARGE_BYTES, LEAST_S, UNKNOWN_S, Latency


def test_little_knowledge_is_none():
    latency = Latency()
    for _ in range(FEWEST - 1):
        latency.add(100, 3.0)

    assert latency.p95(100) == UNKNOWN_S


def test_95_of_100_are_within():
    latency = Latency()
    for number in range(100):
        latency.add(100, 1.0 + number)

    assert latency.p95(100) == 96.0


def test_small_and_large_ranges_are_kept_apart():
    latency = Latency()
    for _ in range(FEWEST):
        latency.add(LARGE_BYTES, 2.0)
        latency.add(LARGE_BYTES - 1, 1.0)

    assert latency.p95(LARGE_BYTES) == 2.0
    assert latency.p95(1) == 1.0


def test_old_answers_are_forgotten():
    latency = Latency()
    for seconds in (9.0, 1.0):
        for _ in range(200):
            latency.add(1, seconds)

    assert latency.p95(1) == 1.0


def test_pauses_of_a_busy_machine_are_not_taken_for_slowness():
    latency = Latency()
    for _ in range(FEWEST):
        latency.add(1, 0.0001)

    assert latency.p95(1) == LEAST_S
