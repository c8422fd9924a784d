import threading

from nydusd.daemon.control import ControlThread, Job

WAIT_S = 60


def test_jobs_run_in_order_and_an_error_is_told():
    told = []
    ended = threading.Event()
    control = ControlThread(lambda: False)
    for work in (lambda: 1, lambda: 1 // 0, lambda: 3):
        control.submit(Job(work, lambda result, exc: told.append((result, type(exc)))))
    control.submit(Job(lambda: None, lambda _result, _exc: ended.set()))
    control.start()

    assert ended.wait(WAIT_S)
    assert told == [(1, type(None)), (None, ZeroDivisionError), (3, type(None))]
    assert control.stop(WAIT_S)


def test_it_tidies_again_as_long_as_there_is_something():
    left = [3]
    ended = threading.Event()

    def tidy():
        left[0] -= 1
        if left[0] == 0:
            ended.set()
        return left[0] > 0

    control = ControlThread(tidy)
    control.submit(Job(lambda: None, lambda _result, _exc: None))
    control.start()

    assert ended.wait(WAIT_S)
    assert control.stop(WAIT_S)


def test_a_job_that_hangs_does_not_keep_the_end():
    gate, begun = threading.Event(), threading.Event()

    def hang():
        begun.set()
        gate.wait(WAIT_S)

    told = []
    control = ControlThread(lambda: False)
    control.submit(Job(hang, lambda _result, _exc: None))
    control.submit(Job(lambda: None, lambda _result, _exc: told.append(1)))
    control.start()
    assert begun.wait(WAIT_S)

    assert not control.stop(0.05)
    gate.set()
    assert control.stop(WAIT_S)
    assert told == []
