"""A VMM for a guest of one page, to see whether KVM runs guests at all: ``kvm_guest.py DEVICE SECONDS``, a program.

It exits with 0 when the guest did its work, and else with a line on stderr that says why; it dies of SIGALRM
when the guest does not come to its end in SECONDS. It needs nothing of pyro. The calls are those of
Linux, Documentation/virt/kvm/api.rst; numbers and layouts are those of <linux/kvm.h> on x86-64.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import struct
import sys

API_VERSION = 12
GET_API_VERSION = 0xAE00
CREATE_VM = 0xAE01
GET_VCPU_MMAP_SIZE = 0xAE04
CREATE_VCPU = 0xAE41
SET_USER_MEMORY_REGION = 0x4020AE46
SET_TSS_ADDR = 0xAE47
RUN = 0xAE80
SET_REGS = 0x4090AE82
GET_SREGS = 0x8138AE83
SET_SREGS = 0x4138AE84
MEMORY_REGION = struct.Struct("<IIQQQ")  # slot, flags, guest address, size, our address
REGS = struct.Struct("<18Q")  # rax to r15, rip, rflags
SREGS_SIZE = 312
CODE_SEGMENT = struct.Struct("<QIH")  # base, limit, selector: the head of struct kvm_sregs
EXIT_REASON_AT = 8  # in struct kvm_run
IO_AT = 32
IO = struct.Struct("<BBHIQ")  # direction, size, port, count, where the data is in struct kvm_run
EXIT_IO, EXIT_HLT = 2, 5
IO_OUT = 1

PAGE = 4096
GUEST_ADDRESS = 0x1000
TSS_ADDRESS = 0x20000  # Intel processors need three pages there, outside the guest's memory
RESERVED_FLAG = 2  # rflags has this bit always set
PORT, VALUE = 0x10, 0x42
CODE = bytes([0xB0, VALUE, 0xE6, PORT, 0xF4])  # mov al, 0x42; out 0x10, al; hlt


class GuestError(Exception):
    """KVM did not run the guest."""


def run_guest(device: str) -> None:
    """Run the guest on *device*; raises GuestError, or OSError from the call that failed."""
    with contextlib.ExitStack() as stack:
        system = _owned(stack, os.open(device, os.O_RDWR | os.O_CLOEXEC))
        version = fcntl.ioctl(system, GET_API_VERSION, 0)
        if version != API_VERSION:
            raise GuestError(f"KVM speaks version {version} of its interface instead of {API_VERSION}")
        machine = _owned(stack, fcntl.ioctl(system, CREATE_VM, 0))
        memory = stack.enter_context(contextlib.closing(mmap.mmap(-1, PAGE)))
        memory[: len(CODE)] = CODE
        fcntl.ioctl(machine, SET_TSS_ADDR, TSS_ADDRESS)
        fcntl.ioctl(machine, SET_USER_MEMORY_REGION, MEMORY_REGION.pack(0, 0, GUEST_ADDRESS, PAGE, _address(memory)))
        processor = _owned(stack, fcntl.ioctl(machine, CREATE_VCPU, 0))
        size = fcntl.ioctl(system, GET_VCPU_MMAP_SIZE, 0)
        shared = stack.enter_context(contextlib.closing(mmap.mmap(processor, size)))
        _start_at(processor, GUEST_ADDRESS)
        fcntl.ioctl(processor, RUN, 0)
        check_output(shared[:])
        fcntl.ioctl(processor, RUN, 0)
        check_halt(shared[:])


def check_output(run: bytes) -> None:
    """Raise GuestError unless *run* (struct kvm_run) says that the guest wrote VALUE to PORT."""
    _check_exit(run, EXIT_IO)
    direction, size, port, count, data_at = IO.unpack_from(run, IO_AT)
    if (direction, size, port, count) != (IO_OUT, 1, PORT, 1) or run[data_at : data_at + 1] != bytes([VALUE]):
        raise GuestError("the guest wrote something else than it was told to")


def check_halt(run: bytes) -> None:
    """Raise GuestError unless *run* (struct kvm_run) says that the guest halted."""
    _check_exit(run, EXIT_HLT)


def _check_exit(run: bytes, wanted: int) -> None:
    (reason,) = struct.unpack_from("<I", run, EXIT_REASON_AT)
    if reason != wanted:
        raise GuestError(f"the guest stopped with KVM exit {reason} instead of {wanted}")


def _start_at(processor: int, address: int) -> None:
    """Real mode, code segment at 0, the instruction pointer at *address*."""
    sregs = bytearray(fcntl.ioctl(processor, GET_SREGS, bytes(SREGS_SIZE)))
    _, limit, _ = CODE_SEGMENT.unpack_from(sregs)
    CODE_SEGMENT.pack_into(sregs, 0, 0, limit, 0)
    fcntl.ioctl(processor, SET_SREGS, bytes(sregs))
    fcntl.ioctl(processor, SET_REGS, REGS.pack(*[0] * 16, address, RESERVED_FLAG))


def _owned(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _address(memory: mmap.mmap) -> int:
    # The view must not outlive this call: a mapping with a view cannot be closed.
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def main(arguments: list[str]) -> int:
    """Run the program; returns its exit status."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, float(arguments[1]))
    try:
        run_guest(arguments[0])
    except OSError as error:
        sys.stderr.write(f"a call of KVM failed: {error.strerror}\n")
    except GuestError as error:
        sys.stderr.write(f"{error}\n")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
