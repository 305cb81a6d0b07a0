"""One question, one answer: the operations of the protocol that do not stream."""

import base64
import json
from typing import Any

from pyro_mcp.errors import GuestProtocol, InvalidRequest
from pyro_mcp.guest.answers import Answer, read_object, refusal
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.wire import PAYLOAD_MOST, FrameType
from pyro_mcp.host.deadline import Deadline


def encode_request(op: str, fields: dict[str, Any]) -> bytes:
    """The payload of a REQUEST; raises InvalidRequest when it does not fit into one frame."""
    payload = json.dumps({"op": op, **fields}, separators=(",", ":")).encode()
    if len(payload) > PAYLOAD_MOST:
        raise InvalidRequest(
            "the command and its environment are too large together",
            remedy="Pass long values through standard input or a file.",
        )
    return payload


def b64(data: bytes | str) -> str:
    """Bytes, or text as the host's filesystem encodes it, in the form JSON carries them."""
    raw = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    return base64.b64encode(raw).decode()


def exchange(session: Session, op: str, fields: dict[str, Any], deadline: Deadline) -> Answer:
    """Ask one question and return its answer; raises AgentRefused when the agent says no."""
    session.send_frame(FrameType.REQUEST, encode_request(op, fields), deadline)
    frame = session.receive_frame(deadline)
    if frame.kind is FrameType.ERROR:
        raise refusal(frame.payload)
    if frame.kind is not FrameType.RESPONSE:
        raise GuestProtocol(f"the guest answered {op} with a frame of kind {frame.kind.name}")
    return read_object(frame.payload, op)
