"""Run as a program, ``enter.py PID PROGRAM...``: PROGRAM in the network namespace of a normal user's machine.

nsenter(1) does not do. In the machine's user namespace its user has the number they have outside, so nobody is root
there, and what such a user starts has only capabilities that are ambient (capabilities(7)). It imports nothing of ours.
"""

import ctypes
import os
import struct
import sys

NEW_USER, NEW_NET = 0x10000000, 0x40000000
CAPABILITY_VERSION = 0x20080522
CAP_NET_ADMIN = 12
PR_CAP_AMBIENT, RAISE = 47, 2
FAILED = 1


def main(words: list[str]) -> None:
    """Become the program; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid, *program = words
    entered = [
        (os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY), flag) for kind, flag in (("user", NEW_USER), ("net", NEW_NET))
    ]
    for descriptor, flag in entered:
        _check("setns", libc.setns(descriptor, flag))
        os.close(descriptor)
    wanted = 1 << CAP_NET_ADMIN
    head, sets = struct.pack("=Ii", CAPABILITY_VERSION, 0), struct.pack("=6I", wanted, wanted, wanted, 0, 0, 0)
    _check("capset", libc.capset(head, sets))
    _check(
        "prctl", libc.prctl(PR_CAP_AMBIENT, RAISE, ctypes.c_ulong(CAP_NET_ADMIN), ctypes.c_ulong(0), ctypes.c_ulong(0))
    )
    os.execvp(program[0], program)  # noqa: S606 - as whom and where it runs is what this is for


def _check(call: str, result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.stderr.write(f"enter.py: {error}\n")
        sys.exit(FAILED)
