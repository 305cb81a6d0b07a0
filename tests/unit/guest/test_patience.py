"""How long the host waits, without waiting."""

import signal

import pytest

from pyro_mcp.errors import Interrupted, LinkTimeout
from pyro_mcp.guest.patience import LAST_CALL, Cancelling, Patience
from pyro_mcp.host.deadline import Deadline


def past() -> Deadline:
    return Deadline.after(-1)


def test_job_that_is_over_its_time_gets_one_last_call() -> None:
    patience = Patience(Deadline.never(), past())
    patience.check()
    assert 0 < patience.end.remaining <= LAST_CALL
    patience.excuse(-2 * LAST_CALL)
    with pytest.raises(LinkTimeout, match="did not end the command"):
        patience.check()


def test_time_the_sinks_take_does_not_count_against_the_job() -> None:
    patience = Patience(Deadline.never(), past())
    patience.excuse(100)
    patience.check()
    assert not patience.end.passed


def test_deadline_of_the_caller_knows_no_excuse() -> None:
    patience = Patience(past(), Deadline.never())
    patience.excuse(100)
    with pytest.raises(LinkTimeout):
        patience.check()


def test_cancelling_asks_then_kills_then_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_mcp.guest.patience.KILL_PATIENCE", 0.0)
    cancelling = Cancelling(grace=0.0)
    assert cancelling.due() is None
    assert not cancelling.asked
    assert cancelling.ask() == signal.SIGTERM
    assert cancelling.due() == signal.SIGKILL
    with pytest.raises(Interrupted):
        cancelling.due()


def test_cancelling_sends_each_signal_once() -> None:
    cancelling = Cancelling(grace=60)
    assert [cancelling.ask() for _ in range(4)] == [signal.SIGTERM, signal.SIGKILL, None, None]
    assert cancelling.due() is None
