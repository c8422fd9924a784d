from nydusd.daemon.events import BYTES_MAX, ERRORS_MAX, Events


def test_the_oldest_error_goes_first():
    events = Events()
    for number in range(ERRORS_MAX + 3):
        events.record(f"error {number}")
    found = events.snapshot()

    assert found["total_errors"] == len(found["errors"]) == ERRORS_MAX
    assert found["errors"][0].endswith(" GMT - error 3")
    assert found["errors"][-1].endswith(f"error {ERRORS_MAX + 2}")


def test_the_text_of_all_errors_is_bounded():
    events = Events()
    for _ in range(20):
        events.record("ü" * 4000)
    found = events.snapshot()

    assert found["total_size"] == sum(len(each.encode()) for each in found["errors"]) <= BYTES_MAX
    events.record("x" * 10 * BYTES_MAX)
    assert events.snapshot()["total_size"] <= BYTES_MAX


def test_an_error_is_one_line():
    events = Events()
    events.record("first\nsecond\x1b[0m")

    assert events.snapshot()["errors"][0].isprintable()
