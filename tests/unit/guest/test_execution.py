"""Commands: streams, input within its credit, ends, cancelling, lost links."""

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyro_mcp.errors import GuestRefused, Interrupted, InvalidRequest, LinkTimeout, MachineDied
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.control import Control
from pyro_mcp.guest.execution import attach, execute
from pyro_mcp.guest.faults import AgentRefused, LinkLost, Progress
from pyro_mcp.guest.link import Watch
from pyro_mcp.guest.outcome import Exit, new_job
from pyro_mcp.guest.stdin import BytesStdin, DescriptorStdin, StdinSource
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec, Terminal
from pyro_mcp.testing.fake_agent import FakeAgent, FakeJob, Program, exit_fields, started
from pyro_mcp.testing.guest_peer import Behaviour, FakeGuest, GuestPeer

SOON = 20.0
NOBODYS_DESCRIPTOR = 1000


def soon() -> Deadline:
    return Deadline.after(SOON)


def run(
    behaviour: Behaviour,
    *,
    stdin: StdinSource | None = None,
    control: Control | None = None,
    sinks: CaptureSinks | None = None,
    command: CommandSpec | None = None,
    deadline: Deadline | None = None,
    grace: float = SOON,
) -> tuple[Exit, CaptureSinks]:
    sinks = sinks or CaptureSinks()
    with FakeGuest(behaviour) as guest, guest.open(soon()) as session:
        end = execute(
            session,
            command or CommandSpec("true"),
            new_job(),
            sinks=sinks,
            stdin=stdin,
            control=control,
            deadline=deadline or soon(),
            grace=grace,
        )
    return end, sinks


def cat(job: FakeJob) -> None:
    """Copies its input to its output, piece by piece."""
    while True:
        kind, payload = job.event()
        if kind is FrameType.STDIN_EOF:
            break
        job.out(payload)
    job.finish(0)


@pytest.fixture
def control() -> Iterator[Control]:
    with Control() as control:
        yield control


def test_command_is_sent_as_the_protocol_has_it() -> None:
    agent = FakeAgent()
    command = CommandSpec("echo \udcff", 1.0005, {"NAME": "välue"}, "/tmp", "user:group", Terminal(24, 80, "xterm"))
    run(agent, command=command, grace=2)
    request = agent.requests[0]
    assert [base64.b64decode(word) for word in request.pop("argv")] == [b"/bin/sh", b"-lc", b"echo \xff"]
    assert [base64.b64decode(word) for word in request.pop("env")] == ["NAME=välue".encode()]
    assert base64.b64decode(request.pop("cwd")) == b"/tmp"
    assert len(request.pop("job")) == 16
    assert request == {
        "op": "exec",
        "user": "user:group",
        "tty": {"rows": 24, "cols": 80, "term": "xterm"},
        "stdin": False,
        "timeout_ms": 1001,
        "grace_ms": 2000,
        "buffer_bytes": 1 << 20,
        "detach": False,
    }


def test_streams_arrive_whole_and_apart() -> None:
    data = os.urandom(3_000_000)

    def program(job: FakeJob) -> None:
        job.out(data)
        job.err(b"warning")
        job.out(b"end")
        job.finish(7, causes=["oom", "weather", "oom"], error="a\nb")

    captured = CaptureSinks(8 << 20)
    end, _ = run(FakeAgent(program), sinks=captured)
    assert captured.stdout.parts()[0] + captured.stdout.parts()[1] == data + b"end"
    assert captured.stderr.text() == "warning"
    assert (end.exit_code, end.causes, end.error) == (7, ("oom",), "a b")
    assert (end.stdout_bytes, end.stderr_bytes) == (3_000_003, 7)


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_000])
def test_input_from_bytes_arrives_whole(size: int) -> None:
    data = os.urandom(size)
    _, sinks = run(FakeAgent(cat), stdin=BytesStdin(data), sinks=CaptureSinks(4 << 20))
    assert b"".join(sinks.stdout.parts()) == data


def test_input_from_a_regular_file_arrives_whole(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(os.urandom(1_000_000))
    with file.open("rb") as stream:
        _, sinks = run(FakeAgent(cat), stdin=DescriptorStdin(stream.fileno()), sinks=CaptureSinks(4 << 20))
    assert b"".join(sinks.stdout.parts()) == file.read_bytes()


def test_input_from_dev_null_is_empty() -> None:
    with Path("/dev/null").open("rb") as stream:
        _, sinks = run(FakeAgent(cat), stdin=DescriptorStdin(stream.fileno()))
    assert sinks.stdout.total == 0


def test_input_from_a_pipe_is_passed_on_as_it_comes() -> None:
    reader, writer = os.pipe()

    class Sinks(CaptureSinks):
        """Writes the next line once the last one has come back."""

        def on_stdout(self, data: memoryview) -> None:
            super().on_stdout(data)
            if self.stdout.total < 12:
                os.write(writer, b"next\n")
            else:
                os.close(writer)

    os.write(writer, b"first\n")
    _, sinks = run(FakeAgent(cat), stdin=DescriptorStdin(reader), sinks=Sinks())
    assert sinks.stdout.text() == "first\nnext\nnext\n"
    os.close(reader)


def test_closed_descriptor_is_the_end_of_the_input() -> None:
    _, sinks = run(FakeAgent(cat), stdin=DescriptorStdin(NOBODYS_DESCRIPTOR))
    assert sinks.stdout.total == 0


def test_nonblocking_terminal_keeps_its_mode_and_its_input_arrives() -> None:
    leader, follower = os.openpty()
    os.set_blocking(follower, False)
    os.write(leader, b"line\n\x04")
    _, sinks = run(FakeAgent(cat), stdin=DescriptorStdin(follower))
    assert sinks.stdout.text() == "line\n"
    assert not os.get_blocking(follower)
    os.close(leader)
    os.close(follower)


def test_input_waits_for_credit_to_the_byte() -> None:
    taken: list[bytes] = []

    def scripted(peer: GuestPeer) -> None:
        peer.greet()
        job = peer.request()["job"]
        peer.send_json(FrameType.RESPONSE, started(job, stdin_credit=10))
        taken.append(peer.receive()[1])
        peer.send(FrameType.CREDIT, (3).to_bytes(4, "big"))
        taken.append(peer.receive()[1])
        peer.send(FrameType.CREDIT, (0xFFFFFFFF).to_bytes(4, "big"))
        taken.append(peer.receive()[1])
        assert peer.receive()[0] is FrameType.STDIN_EOF
        peer.send_json(FrameType.EXIT, exit_fields())

    run(scripted, stdin=BytesStdin(b"abcdefghijklmnopqrst"))
    assert taken == [b"abcdefghij", b"klm", b"nopqrst"]


def test_command_that_leaves_its_input_unread_is_no_error() -> None:
    def program(job: FakeJob) -> None:
        job.finish(0)

    end, _ = run(FakeAgent(program), stdin=BytesStdin(bytes(10_000_000)))
    assert end.exit_code == 0


def test_command_without_input_gets_none_whatever_it_says() -> None:
    agent = FakeAgent()
    run(agent, command=CommandSpec("cat", stdin=True))
    assert agent.requests[0]["stdin"] is False


def test_lost_output_is_counted_and_the_rest_arrives() -> None:
    def scripted(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_json(FrameType.RESPONSE, started(peer.request()["job"]))
        peer.send(FrameType.STDOUT, (0).to_bytes(8, "big") + b"abc")
        peer.send(FrameType.STDOUT, (10).to_bytes(8, "big") + b"def")
        peer.send(FrameType.STDERR, (4).to_bytes(8, "big"))
        peer.send_json(FrameType.EXIT, exit_fields())
        peer.receive_bytes()

    _, sinks = run(scripted)
    assert (sinks.stdout.lost, sinks.stdout.total) == (7, 13)
    assert (sinks.stderr.lost, sinks.stderr.total) == (4, 4)


def test_refused_command_keeps_the_code() -> None:
    def refuses(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.ERROR, {"code": "bad_cwd", "message": "/nowhere: no such directory"})
        peer.receive_bytes()

    with pytest.raises(GuestRefused, match="/nowhere") as caught:
        run(refuses)
    assert isinstance(caught.value, AgentRefused)
    assert caught.value.guest_code == "bad_cwd"


def test_command_too_large_for_a_frame_is_refused_before_it_is_sent() -> None:
    command = CommandSpec("x" * 131_000, env={f"N{number}": "y" * 60 for number in range(985)})
    with pytest.raises(InvalidRequest, match="too large"):
        run(FakeAgent(), command=command)


@pytest.mark.parametrize("job", ["", "0" * 15, "0" * 17, "00112233445566FF", "../../../../etc1"])
def test_wrong_job_id_is_refused(job: str) -> None:
    with FakeGuest(FakeAgent()) as guest, guest.open(soon()) as session, pytest.raises(InvalidRequest):
        execute(session, CommandSpec("true"), job, sinks=CaptureSinks())


def test_machine_that_ends_in_a_command_is_named_at_once() -> None:
    reader, writer = os.pipe()

    def program(job: FakeJob) -> None:
        job.out(b"partial")
        os.close(writer)
        job.event()

    sinks, watch = CaptureSinks(), Watch(reader, lambda: MachineDied("killed by the host"))
    with (
        FakeGuest(FakeAgent(program), watch=watch) as guest,
        guest.open(soon()) as session,
        pytest.raises(MachineDied, match="killed by the host"),
    ):
        execute(session, CommandSpec("true"), new_job(), sinks=sinks)
    assert sinks.stdout.text() == "partial"
    os.close(reader)


def test_timeout_of_the_guest_is_a_result_with_partial_output() -> None:
    def program(job: FakeJob) -> None:
        job.out(b"partial")
        job.finish(124, timed_out=True, causes=["timeout"], signal=15)

    end, sinks = run(FakeAgent(program))
    assert (end.timed_out, end.exit_code, end.causes) == (True, 124, ("timeout",))
    assert sinks.stdout.text() == "partial"


def hangs(job: FakeJob) -> None:
    """Writes something, then never ends."""
    job.out(b"partial")
    while True:
        job.event()


def test_guest_that_does_not_end_the_command_is_a_link_timeout_and_the_output_is_kept() -> None:
    def attached(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_json(FrameType.RESPONSE, started(peer.request()["job"]))
        peer.send(FrameType.STDOUT, bytes(8) + b"partial")
        while True:
            peer.receive_bytes()

    sinks = CaptureSinks()
    with (
        FakeGuest(attached) as guest,
        guest.open(soon()) as session,
        pytest.raises(LinkTimeout, match="did not end the command") as caught,
    ):
        attach(session, Progress(new_job(), ends=Deadline.after(0.05)), sinks=sinks)
    assert not isinstance(caught.value, LinkLost)
    assert sinks.stdout.text() == "partial"


def test_deadline_of_the_caller_ends_the_wait() -> None:
    sinks = CaptureSinks()
    with pytest.raises(LinkTimeout, match="the command in the guest"):
        run(FakeAgent(hangs), sinks=sinks, deadline=Deadline.after(0.3))
    assert sinks.stdout.text() == "partial"


def test_signals_and_sizes_reach_the_job_in_order(control: Control) -> None:
    got: list[tuple[FrameType, bytes]] = []

    def program(job: FakeJob) -> None:
        got.extend(job.event() for _ in range(3))
        job.finish(0)

    control.signal(signal.SIGUSR1)
    control.resize(50, 1_000_000)
    control.signal(signal.SIGINT)
    run(FakeAgent(program), control=control)
    assert got == [
        (FrameType.SIGNAL, bytes([0, 0, 0, signal.SIGUSR1])),
        (FrameType.RESIZE, b"\x00\x32\xff\xff"),
        (FrameType.SIGNAL, bytes([0, 0, 0, signal.SIGINT])),
    ]


def test_signal_from_a_signal_handler_reaches_the_job(control: Control) -> None:
    def program(job: FakeJob) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        kind, payload = job.event()
        assert (kind, payload[3]) == (FrameType.SIGNAL, signal.SIGTERM)
        job.finish(143, signal=15)

    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: control.signal(signal.SIGTERM))
    try:
        end, _ = run(FakeAgent(program), control=control)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert end.signal == signal.SIGTERM


def signals_until_kill(got: list[int], *, ends_at: int) -> Program:
    def program(job: FakeJob) -> None:
        job.out(b"running")
        while not got or got[-1] != ends_at:
            got.append(job.event()[1][3])
        job.finish(128 + ends_at, signal=ends_at)

    return program


class CancelOnOutput(CaptureSinks):
    """Cancels, so many times, once the command says it runs."""

    def __init__(self, control: Control, times: int) -> None:
        super().__init__()
        self._control = control
        self._times = times

    def on_stdout(self, data: memoryview) -> None:
        """Cancel."""
        super().on_stdout(data)
        for _ in range(self._times):
            self._control.cancel()


def test_cancel_ends_the_job_with_sigterm(control: Control) -> None:
    got: list[int] = []
    sinks = CancelOnOutput(control, 1)
    with pytest.raises(Interrupted):
        run(FakeAgent(signals_until_kill(got, ends_at=signal.SIGTERM)), control=control, sinks=sinks)
    assert got == [signal.SIGTERM]
    assert sinks.stdout.text() == "running"


def test_cancel_kills_a_job_that_ignores_sigterm_after_the_grace(control: Control) -> None:
    got: list[int] = []
    sinks = CancelOnOutput(control, 1)
    with pytest.raises(Interrupted):
        run(FakeAgent(signals_until_kill(got, ends_at=signal.SIGKILL)), control=control, sinks=sinks, grace=0.05)
    assert got == [signal.SIGTERM, signal.SIGKILL]


def test_second_cancel_kills_at_once(control: Control) -> None:
    got: list[int] = []
    sinks = CancelOnOutput(control, 3)
    with pytest.raises(Interrupted):
        run(FakeAgent(signals_until_kill(got, ends_at=signal.SIGKILL)), control=control, sinks=sinks)
    assert got == [signal.SIGTERM, signal.SIGKILL]


def test_cancel_gives_up_on_a_guest_that_does_not_confirm(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_mcp.guest.patience.KILL_PATIENCE", 0.05)
    with pytest.raises(Interrupted, match="did not confirm"):
        run(FakeAgent(hangs), control=control, sinks=CancelOnOutput(control, 2))


def test_cancel_before_the_start_starts_nothing(control: Control) -> None:
    agent = FakeAgent()
    control.cancel()
    with pytest.raises(Interrupted, match="before it started"):
        run(agent, control=control)
    assert not agent.jobs


def test_sink_that_fails_ends_the_wait_with_its_own_error() -> None:
    class Full(CaptureSinks):
        """A pipe nobody reads."""

        def on_stdout(self, data: memoryview) -> None:
            """Fail."""
            raise BrokenPipeError(len(data))

    with pytest.raises(BrokenPipeError):
        run(FakeAgent(hangs), sinks=Full())
