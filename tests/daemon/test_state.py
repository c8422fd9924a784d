import pytest

from nydusd.daemon.state import TRANSITIONS, Event, State, StateMachine, UnexpectedEvent


def test_a_normal_life_runs_through_the_table(caplog):
    machine = StateMachine()
    with caplog.at_level("INFO", logger="nydusd"):
        for event in (Event.MOUNT, Event.START, Event.STOP, Event.STOP):
            machine.fire(event)

    assert machine.state is State.DIE
    assert "from Init to Ready, input [Mount], output [None]" in caplog.messages[0]


@pytest.mark.parametrize(
    ("state", "event"),
    [(s, e) for s in State for e in Event if (s, e) not in TRANSITIONS],
)
def test_an_event_outside_the_table_is_refused(state, event):
    machine = StateMachine()
    machine.state = state

    with pytest.raises(UnexpectedEvent, match=f"Event={event.value}, CurrentState={state.value}"):
        machine.fire(event)
    assert machine.state is state


def test_an_action_that_fails_leaves_the_state():
    machine = StateMachine()

    with pytest.raises(ZeroDivisionError):
        machine.fire(Event.MOUNT, lambda: 1 // 0)
    assert machine.state is State.INIT
