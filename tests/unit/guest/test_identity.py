"""Every machine is somebody else."""

import pytest

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.identity import Identity


def test_fresh_identities_share_nothing_but_the_name() -> None:
    one, other = Identity.fresh("0123456789ab"), Identity.fresh("0123456789ab", resumed=True)
    assert one.hostname == other.hostname == "pyro-0123456789ab"
    assert len(bytes.fromhex(one.machine_id)) == 16
    assert one.machine_id != other.machine_id
    assert len(one.entropy) == 64
    assert one.entropy != other.entropy
    assert (one.resumed, other.resumed) == (False, True)


def test_entropy_is_not_shown() -> None:
    identity = Identity.fresh("0123456789ab")
    assert repr(identity.entropy) not in repr(identity)


def test_identity_of_a_wrong_id_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        Identity.fresh("../../etc")
