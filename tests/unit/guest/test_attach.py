"""Jobs that outlive their connection: launched ones, and those whose link broke."""

import signal
import threading

import pytest

from pyro_mcp.errors import Interrupted
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.control import Control
from pyro_mcp.guest.execution import attach, execute, launch
from pyro_mcp.guest.faults import AgentRefused, LinkLost, Progress
from pyro_mcp.guest.outcome import new_job
from pyro_mcp.guest.stdin import BytesStdin
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec
from pyro_mcp.testing.fake_agent import FakeAgent, FakeJob, exit_fields, started
from pyro_mcp.testing.guest_peer import FakeGuest, GuestPeer

SOON = 20.0


def soon() -> Deadline:
    return Deadline.after(SOON)


def test_launched_command_goes_on_alone_and_its_output_waits() -> None:
    def program(job: FakeJob) -> None:
        job.out(b"written alone")
        job.finish(4)

    job, sinks = new_job(), CaptureSinks()
    with FakeGuest(FakeAgent(program)) as guest:
        with guest.open(soon()) as session:
            answer = launch(session, CommandSpec("true"), job, deadline=soon())
        assert (answer.job, answer.fresh) == (job, True)
        with guest.open(soon()) as session:
            end = attach(session, Progress(job), sinks=sinks)
    assert (end.exit_code, sinks.stdout.text()) == (4, "written alone")


def test_same_job_runs_once_however_often_it_is_asked_for() -> None:
    runs: list[FakeJob] = []

    def program(job: FakeJob) -> None:
        runs.append(job)
        job.out(b"once")
        job.finish(0)

    job, sinks = new_job(), [CaptureSinks(), CaptureSinks()]
    with FakeGuest(FakeAgent(program)) as guest, guest.open(soon()) as session:
        for place in sinks:
            execute(session, CommandSpec("true"), job, sinks=place)
    assert len(runs) == 1
    assert [place.stdout.text() for place in sinks] == ["once", "once"]


def test_lost_link_says_where_to_attach_and_nothing_is_lost_or_doubled() -> None:
    attached = threading.Event()

    def program(job: FakeJob) -> None:
        job.out(b"before ")
        job.err(b"warn ")
        job.drop_link()
        job.out(b"meanwhile ")
        assert attached.wait(SOON)
        job.out(b"after")
        job.finish(5)

    sinks = CaptureSinks()
    with FakeGuest(FakeAgent(program)) as guest:
        with guest.open(soon()) as session, pytest.raises(LinkLost) as caught:
            execute(session, CommandSpec("true"), new_job(), sinks=sinks)
        lost = caught.value.progress
        assert lost is not None
        assert (lost.stdout_offset, lost.stderr_offset) == (7, 5)
        assert 20 < lost.ends.remaining < 60
        with guest.open(soon()) as session:
            attached.set()
            end = attach(session, lost, sinks=sinks)
    assert end.exit_code == 5
    assert sinks.stdout.text() == "before meanwhile after"
    assert sinks.stderr.text() == "warn "


def test_input_goes_on_where_it_was_after_an_attach() -> None:
    source, pieces = BytesStdin(b"0123456789"), []

    def first(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_json(FrameType.RESPONSE, started(peer.request()["job"], stdin_credit=4))
        pieces.append(peer.receive()[1])

    def second(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_json(FrameType.RESPONSE, started(peer.request()["job"], fresh=False, stdin_credit=100))
        pieces.append(peer.receive()[1])
        peer.send_json(FrameType.EXIT, exit_fields())
        peer.receive_bytes()

    with FakeGuest(first, second) as guest:
        with guest.open(soon()) as session, pytest.raises(LinkLost) as caught:
            execute(session, CommandSpec("true"), new_job(), sinks=CaptureSinks(), stdin=source)
        assert caught.value.progress is not None
        assert caught.value.progress.stdin_bytes == 4
        with guest.open(soon()) as session:
            attach(session, caught.value.progress, sinks=CaptureSinks(), stdin=source)
    assert pieces == [b"0123", b"456789"]


def test_cancel_before_an_attach_reaches_the_job() -> None:
    got: list[int] = []

    def scripted(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_json(FrameType.RESPONSE, started(peer.request()["job"], fresh=False))
        got.append(peer.receive()[1][3])
        peer.send_json(FrameType.EXIT, exit_fields(signal=15))
        peer.receive_bytes()

    with FakeGuest(scripted) as guest, guest.open(soon()) as session, Control() as control:
        control.cancel()
        with pytest.raises(Interrupted):
            attach(session, Progress(new_job()), sinks=CaptureSinks(), control=control)
    assert got == [signal.SIGTERM]


def test_link_that_breaks_while_cancelling_is_no_reason_to_attach() -> None:
    def program(job: FakeJob) -> None:
        job.err(b"running")
        job.event()
        job.drop_link()
        job.finish(143)

    with FakeGuest(FakeAgent(program)) as guest, guest.open(soon()) as session, Control() as control:

        class Sinks(CaptureSinks):
            """Cancels at the first output."""

            def on_stderr(self, data: memoryview) -> None:
                """Cancel."""
                super().on_stderr(data)
                control.cancel()

        with pytest.raises(Interrupted, match="link broke"):
            execute(session, CommandSpec("true"), new_job(), sinks=Sinks(), control=control)


def test_attach_to_an_unknown_job_is_refused() -> None:
    with FakeGuest(FakeAgent()) as guest, guest.open(soon()) as session, pytest.raises(AgentRefused) as caught:
        attach(session, Progress(new_job()), sinks=CaptureSinks())
    assert caught.value.guest_code == "no_such_job"
