"""A push on a session: what is sent waits in the guest until it is committed, or is forgotten with the session."""

import secrets
import zlib
from dataclasses import dataclass

from pyro_mcp.errors import Busy, GuestProtocol, LinkTimeout
from pyro_mcp.guest.answers import Answer, refusal
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.faults import AgentRefused
from pyro_mcp.guest.operations import exchange
from pyro_mcp.guest.sync.records import DATA_HEAD, Kind, Record, data_head, pack
from pyro_mcp.guest.wire import PAYLOAD_MOST, FrameType
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.host.wait import attempts

DATA_MOST = PAYLOAD_MOST - DATA_HEAD


@dataclass(frozen=True, slots=True)
class Committed:
    """What the guest did: names that were new, took another's place, were removed, got other attributes."""

    created: int
    replaced: int
    removed: int
    attributes: int


class Stage:
    """The host's end of one push. Records are sent in frames as large as they may be.

    Every method raises AgentRefused as soon as the guest has given up, for instance when its disk is full.
    """

    def __init__(self, session: Session, deadline: Deadline) -> None:
        self.id = secrets.token_hex(8)
        self._session = session
        self._deadline = deadline
        self._parts: list[bytes] = []
        self._size = 0
        self._checksum = zlib.adler32(b"")
        self._records = 0
        self._bytes = 0
        self._directories = 1

    def begin(self, progress: Progress) -> int:
        """Open the staging area, once no other push is open; the bytes that are free on the guest's disk."""
        waited = False
        for _ in attempts(self._deadline):
            try:
                answer = exchange(self._session, "stage", {"stage": self.id}, self._deadline)
            except AgentRefused as refused:
                if refused.guest_code != "busy":
                    raise
                if not waited:
                    progress.note("Waiting for another push to this machine.")
                waited = True
            except LinkTimeout:
                if not waited or not self._deadline.passed:
                    raise
            else:
                return answer.integer("free_bytes")
        raise Busy("another push to this machine did not end in time", remedy="Wait for it, then push again.")

    def add(self, record: Record) -> int:
        """Send a record that is not DATA; the number of the directory, if it is one."""
        self._put(pack(record))
        if record.kind is Kind.HOLE:
            return 0
        self._records += 1
        if record.kind is Kind.FILE:
            self._bytes += record.size
        if record.kind is not Kind.DIRECTORY:
            return 0
        self._directories += 1
        return self._directories - 1

    def data(self, content: bytes) -> None:
        """Send bytes of the file that was added last; at most DATA_MOST."""
        if content:
            self._put(data_head(len(content)), content)

    def commit(self) -> Committed:
        """Switch in what was sent: all of it, or, when this raises AgentRefused, nothing.

        After LinkLost it is not known whether it happened: ask :func:`outcome`.
        """
        self._flush()
        self._settle()
        fields = {
            "stage": self.id,
            "records": self._records,
            "bytes": self._bytes,
            "checksum": self._checksum,
        }
        return _committed(exchange(self._session, "commit", fields, self._deadline))

    def _put(self, *parts: bytes) -> None:
        size = sum(len(part) for part in parts)
        if self._size + size > PAYLOAD_MOST:
            self._flush()
        self._parts.extend(parts)
        self._size += size

    def _flush(self) -> None:
        """Send what is there, once the frame before it is on its way: the next is read meanwhile."""
        if not self._parts:
            return
        payload = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._checksum = zlib.adler32(payload, self._checksum)
        self._settle()
        self._session.queue(FrameType.PUSH, payload)
        self._turn()

    def _settle(self) -> None:
        while self._session.pending:
            self._deadline.check("the push to the guest", LinkTimeout)
            self._session.wait(self._deadline)
            self._turn()

    def _turn(self) -> None:
        """Send and receive what can be without waiting; all the guest may say now is that it gives up."""
        self._session.advance()
        frame = self._session.take()
        if frame is None:
            return
        if frame.kind is FrameType.ERROR:
            raise refusal(frame.payload)
        raise GuestProtocol(f"the guest sent {frame.kind.name} during a push")


def outcome(session: Session, stage: str, deadline: Deadline) -> Committed | None:
    """How a push ended whose answer was lost: what was done, or ``None`` if nothing was."""
    for _ in attempts(deadline):
        try:
            return _committed(exchange(session, "commit", {"stage": stage}, deadline))
        except AgentRefused as refused:
            if refused.guest_code == "no_such_stage":
                return None
            if refused.guest_code != "busy":
                raise
    raise LinkTimeout("the guest did not say in time whether the push was switched in")


def _committed(answer: Answer) -> Committed:
    return Committed(
        answer.integer("created"), answer.integer("replaced"), answer.integer("removed"), answer.integer("attributes")
    )
