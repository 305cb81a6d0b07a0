"""The operations that do not stream, against an agent that behaves and many that do not."""

import base64
import time

import pytest

from pyro_mcp.errors import GuestProtocol, GuestRefused, InvalidRequest, LinkTimeout
from pyro_mcp.guest.client import Agent
from pyro_mcp.guest.faults import AgentRefused, LinkLost
from pyro_mcp.guest.identity import Identity
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.testing.fake_agent import ANSWERS, FakeAgent, FakeJob
from pyro_mcp.testing.guest_peer import Behaviour, FakeGuest, GuestPeer

JOB = "00112233445566ff"


def soon() -> Deadline:
    return Deadline.after(20)


def answering(payload: bytes, kind: FrameType = FrameType.RESPONSE) -> Behaviour:
    def behaviour(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send(kind, payload)
        peer.receive_bytes()

    return behaviour


def test_agent_tells_about_itself() -> None:
    with FakeGuest(FakeAgent()) as guest:
        info = Agent(guest).info(soon())
    assert (info.agent_version, info.generation, info.configured) == ("2.3.0", 1, True)
    assert info.boot_ms == {"mounts": 12, "disks": 30}


def test_configure_sends_the_identity_and_the_time_of_sending() -> None:
    agent, identity = FakeAgent(), Identity.fresh("0123456789ab", resumed=True)
    before = time.time_ns()
    with FakeGuest(agent) as guest:
        assert Agent(guest).configure(identity, soon()) == ("clock", "entropy", "hostname", "machine_id")
    request = agent.requests[0]
    assert before <= request.pop("time_unix_ns") <= time.time_ns()
    assert base64.b64decode(request.pop("entropy")) == identity.entropy
    assert request == {
        "op": "configure",
        "hostname": "pyro-0123456789ab",
        "machine_id": identity.machine_id,
        "resumed": True,
    }


def test_usage_is_read() -> None:
    with FakeGuest(FakeAgent()) as guest:
        usage = Agent(guest).usage(soon())
    assert (usage.memory_total_kib, usage.memory_free_kib) == (1_000_000, 800_000)
    assert (usage.disk_free_bytes, usage.processes) == (3 << 30, 7)


def test_jobs_are_listed_with_their_ends() -> None:
    agent = FakeAgent()
    request = {"job": JOB, "argv": [base64.b64encode(b"true").decode()]}
    with FakeGuest(agent) as guest:
        agent.jobs[JOB] = job = FakeJob(GuestPeer(guest.connect()), request)
        job.drop_link()
        assert Agent(guest).jobs(soon())[0].running
        job.finish(3)
        (record,) = Agent(guest).jobs(soon())
    assert record.exit is not None
    assert (record.job, record.running, record.exit.exit_code) == (JOB, False, 3)


def test_refusal_keeps_the_code_and_is_a_guest_refused() -> None:
    with FakeGuest(FakeAgent()) as guest, pytest.raises(GuestRefused) as caught:
        Agent(guest).signal(JOB, 15, "group", soon())
    assert isinstance(caught.value, AgentRefused)
    assert caught.value.guest_code == "no_such_job"
    assert caught.value.code == "guest_refused"
    assert "run the command again" in caught.value.remedy


def test_wrong_job_id_is_refused_before_anything_is_sent() -> None:
    with FakeGuest(FakeAgent()) as guest, pytest.raises(InvalidRequest):
        Agent(guest).forget("../x", soon())
    assert not guest.connections


def test_poweroff_is_done_when_the_machine_goes_before_it_answers() -> None:
    def goes(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()

    with FakeGuest(FakeAgent(), goes) as guest:
        Agent(guest).poweroff(soon())
        Agent(guest).poweroff(soon())


def test_link_that_closes_before_the_answer_is_lost() -> None:
    def closes(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()

    with FakeGuest(closes) as guest, pytest.raises(LinkLost):
        Agent(guest).info(soon())


def test_agent_that_never_answers_is_a_link_timeout() -> None:
    def mute(peer: GuestPeer) -> None:
        peer.greet()
        while True:
            peer.receive_bytes()

    with FakeGuest(mute) as guest, pytest.raises(LinkTimeout, match="answer of the guest"):
        Agent(guest).info(Deadline.after(0.1))


def test_text_of_a_refusal_is_made_safe_and_short() -> None:
    text = rb'{"code":"internal","message":"a\u001b[2J\nb\u202e\ud800' + b"x" * 10_000 + b'"}'
    with FakeGuest(answering(text, FrameType.ERROR)) as guest, pytest.raises(GuestRefused) as caught:
        Agent(guest).info(soon())
    assert caught.value.cause.isprintable()
    assert caught.value.cause.startswith("the guest refused: a [2J b")
    assert len(caught.value.cause) < 600


def test_refusal_with_an_unknown_code_is_internal() -> None:
    text = b'{"code":"because","message":""}'
    with FakeGuest(answering(text, FrameType.ERROR)) as guest, pytest.raises(AgentRefused) as caught:
        Agent(guest).info(soon())
    assert caught.value.guest_code == "internal"


INFO = ANSWERS["info"]
BAD_JSON = {
    "empty": b"",
    "no object": b"[]",
    "null": b"null",
    "two objects": b"{}{}",
    "not UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "deep arrays": b"[" * 200_000,
    "deep objects": b'{"a":' * 50_000,
    "NaN": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "endless integer": b'{"a":' + b"9" * 200_000 + b"}",
    "key twice": b'{"op":1,"op":2}',
    "key twice inside": b'{"a":{"b":1,"b":2}}',
    "missing keys": b"{}",
}


@pytest.mark.parametrize("payload", BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_is_none_or_a_bomb_is_a_protocol_error(payload: bytes) -> None:
    with FakeGuest(answering(payload)) as guest, pytest.raises(GuestProtocol):
        Agent(guest).info(soon())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent_version", 1),
        ("agent_version", "x" * 200),
        ("generation", True),
        ("generation", 1.0),
        ("generation", 1 << 16),
        ("kernel", None),
        ("boot_id", "../../etc"),
        ("boot_id", "0" * 100),
        ("uptime_ms", -1),
        ("uptime_ms", 1 << 63),
        ("uptime_ms", 1e300),
        ("boot_ms", []),
        ("boot_ms", {"stage": "long"}),
        ("boot_ms", {"x" * 1000: 1}),
        ("boot_ms", {str(number): number for number in range(1000)}),
        ("configured", 1),
    ],
)
def test_field_of_a_wrong_type_or_size_is_a_protocol_error(field: str, value: object) -> None:
    def wrong(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.RESPONSE, {**INFO, field: value})
        peer.receive_bytes()

    with FakeGuest(wrong) as guest, pytest.raises(GuestProtocol, match=r"wrong|too much"):
        Agent(guest).info(soon())


@pytest.mark.parametrize(
    "jobs", [None, {}, ["x"], [{}], [{"job": JOB, "pid": 1, "running": True, "exit": []}], [{}] * 5000]
)
def test_wrong_list_of_jobs_is_a_protocol_error(jobs: object) -> None:
    def wrong(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.RESPONSE, {"jobs": jobs})
        peer.receive_bytes()

    with FakeGuest(wrong) as guest, pytest.raises(GuestProtocol):
        Agent(guest).jobs(soon())


def test_unknown_fields_are_ignored() -> None:
    def newer(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.RESPONSE, {**INFO, "load": [0.5, {"deep": None}]})
        peer.receive_bytes()

    with FakeGuest(newer) as guest:
        assert Agent(guest).info(soon()).configured


@pytest.mark.parametrize("kind", [FrameType.STDOUT, FrameType.EXIT, FrameType.CREDIT])
def test_answer_of_another_kind_is_a_protocol_error(kind: FrameType) -> None:
    with FakeGuest(answering(b"{}", kind)) as guest, pytest.raises(GuestProtocol, match=kind.name):
        Agent(guest).info(soon())
