"""Orders from other threads and from signal handlers."""

import os
import threading

import pytest

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.control import Cancel, Control, Resize, SendSignal
from pyro_mcp.guest.link import readable


def test_orders_are_kept_in_order_until_taken() -> None:
    with Control() as control:
        control.signal(2)
        control.resize(0, 70_000)
        control.cancel()
        assert readable(control.fileno(), 0)
        assert control.take() == [SendSignal(2), Resize(1, 65_535), Cancel()]
        assert not readable(control.fileno(), 0)
        assert control.take() == []


def test_orders_of_many_threads_all_arrive() -> None:
    with Control() as control:
        threads = [threading.Thread(target=control.signal, args=(number,)) for number in range(1, 33)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {order.number for order in control.take() if isinstance(order, SendSignal)} == set(range(1, 33))


def test_order_after_the_end_touches_no_descriptor_of_somebody_else() -> None:
    control = Control()
    number = control.fileno()
    reader, writer = os.pipe()
    control.close()
    control.close()
    os.dup2(writer, number)
    control.signal(9)
    control.cancel()
    assert control.take() == [SendSignal(9), Cancel()]
    assert not readable(reader, 0)
    for descriptor in (reader, writer, number):
        os.close(descriptor)


@pytest.mark.parametrize("number", [0, -1, 65, 1 << 40])
def test_number_that_is_no_signal_is_refused(number: int) -> None:
    with Control() as control, pytest.raises(InvalidRequest):
        control.signal(number)
