"""What a guest says it has is bounded by what the host keeps of it, not by what crosses the link."""

import pytest

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.sync.records import PATH_MOST, Kind, Record, pack
from pyro_mcp.guest.sync.walk import PATHS_MOST, Limits, Walk, listing
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.testing.guest_peer import Behaviour, FakeGuest, GuestPeer

SOON = 60.0
ENTRIES = 200_000
DEEP = [Record(Kind.DIRECTORY, number, b"n" * 250) for number in range(16)]
FIRST = Record(Kind.FILE, len(DEEP), b"first")
PATH_LEAST = len(DEEP) * 251
ENOUGH = PATHS_MOST // PATH_LEAST + 1
TARGET = b"t" * PATH_MOST


def entry(kind: Kind, number: int) -> Record:
    """The next one in the deepest directory: few bytes on the wire."""
    name = b"%x" % number
    if kind is Kind.LINK:
        return Record(kind, len(DEEP), name, target=FIRST.name, target_dir=FIRST.dir)
    return Record(kind, len(DEEP), name, target=TARGET if kind is Kind.SYMLINK else b"")


def bloating(kind: Kind) -> Behaviour:
    """A guest that lists entries of *kind* below a long path until it is cut off."""

    def behave(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.RESPONSE, {"kind": "directory"})
        peer.send(FrameType.ENTRIES, b"".join(pack(record) for record in (*DEEP, FIRST)))
        at_once = 10 if kind is Kind.SYMLINK else 1000  # what fits into a frame
        for number in range(0, ENTRIES, at_once):
            peer.send(FrameType.ENTRIES, b"".join(pack(entry(kind, number + more)) for more in range(at_once)))

    return behave


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.SYMLINK, Kind.LINK], ids=lambda kind: kind.name)
def test_paths_that_are_kept_are_bounded(kind: Kind) -> None:
    soon = Deadline.after(SOON)
    with FakeGuest(bloating(kind)) as guest, guest.open(soon) as session:
        walk = Walk(session, b"", contents=False, limits=Limits(ENTRIES, 0), deadline=soon)
        with pytest.raises(InvalidRequest, match=f"more than {PATHS_MOST} bytes together") as caught:
            listing(walk)
        assert caught.value.remedy
        assert walk.entries <= ENOUGH + len(DEEP) + 1


def test_paths_of_directories_that_are_pulled_are_bounded() -> None:
    soon = Deadline.after(SOON)
    with FakeGuest(bloating(Kind.DIRECTORY)) as guest, guest.open(soon) as session:
        walk = Walk(session, b"", contents=True, limits=Limits(ENTRIES, 0), deadline=soon)
        with pytest.raises(InvalidRequest, match=f"more than {PATHS_MOST} bytes together"):
            for _ in walk.records():
                pass
        assert walk.entries <= ENOUGH + len(DEEP)
