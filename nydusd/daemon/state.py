"""The life of a daemon as a table: which event leads from which state to which.

States and events are those that clients of the reference know (its log lines and its API name
them). Used by the main and the control thread; the lock makes an event and its action one step.
"""

import logging
import os
import threading
from collections.abc import Callable
from enum import Enum

from nydusd.base.errors import NydusError

logger = logging.getLogger("nydusd")


class State(Enum):
    """Where a daemon is in its life."""

    INIT = "Init"
    READY = "Ready"  # mounted, not serving
    RUNNING = "Running"
    DIE = "Die"


class Event(Enum):
    """What may happen to a daemon."""

    MOUNT = "Mount"
    TAKEOVER = "Takeover"
    START = "Start"
    STOP = "Stop"
    EXIT = "Exit"  # end without unmounting


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.INIT, Event.MOUNT): State.READY,
    (State.INIT, Event.TAKEOVER): State.READY,
    (State.INIT, Event.STOP): State.DIE,
    (State.READY, Event.START): State.RUNNING,
    (State.READY, Event.STOP): State.DIE,
    (State.READY, Event.EXIT): State.DIE,
    (State.RUNNING, Event.STOP): State.READY,
}


class UnexpectedEvent(NydusError):
    """The event is not allowed in the state the daemon is in."""

    def __init__(self, event: Event, state: State) -> None:
        super().__init__(f"Wrong event input. Event={event.value}, CurrentState={state.value}")
        self.event = event
        self.state = state


class StateMachine:
    """The state of one daemon; starts in INIT."""

    def __init__(self) -> None:
        self.state = State.INIT  # guarded by self._lock for writing
        self._lock = threading.Lock()

    def fire(self, event: Event, action: Callable[[], None] = lambda: None) -> None:
        """Do *action* and move on; `UnexpectedEvent`, or what *action* raises, leaves the state."""
        with self._lock:
            target = TRANSITIONS.get((self.state, event))
            if target is None:
                logger.info(
                    "Wrong event input. Event=%s, CurrentState=%s", event.value, self.state.value
                )
                raise UnexpectedEvent(event, self.state)
            action()
            logger.info(
                "State machine(pid=%d): from %s to %s, input [%s], output [None]",
                os.getpid(),
                self.state.value,
                target.value,
                event.value,
            )
            self.state = target
