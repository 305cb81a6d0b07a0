"""From a launch to QEMU's command line: pure, and compared with golden files.

Sources: QEMU's docs/system/i386/microvm.rst and its manual page; what was measured for QEMU 7.2 under TCG stands at
the lines it explains.
"""

import os
from collections.abc import Iterator

from pyro_mcp.drivers.base import Launch
from pyro_mcp.drivers.launcher import Command, FileUse, SocketUse

LINKS = 16  # operations at once; a virtio-serial device has at most 31 ports, and each costs a little boot time
FIRST_DESCRIPTOR = 3
# Without fast string instructions: TCG carries out `rep movsb` byte by byte, and a kernel that is told they are fast
# copies and clears its pages so, in place of eight bytes at a time: 10.3 s of processor time for a push, not 6.0.
EMULATED_CPU = "max,-erms,-fsrm"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class _Files:
    """Hands out descriptor numbers in order."""

    def __init__(self) -> None:
        self.uses: list[FileUse | SocketUse] = []

    def add(self, use: FileUse | SocketUse) -> int:
        self.uses.append(use)
        return FIRST_DESCRIPTOR + len(self.uses) - 1


def plan(launch: Launch, *, program: str, accelerator: str, tsc_khz: int | None, in_parallel: bool = False) -> Command:
    """The command line for *launch* on *accelerator* (``kvm`` or ``tcg``).

    *in_parallel*: under ``tcg`` several processors may run at the same time (``version.emulates_in_parallel``).
    """
    files = _Files()
    argv = [program, *_machine(launch, accelerator, in_parallel=in_parallel), *_memory(launch, files)]
    if launch.resume_from is None:
        argv += _kernel(launch, files, accelerator, tsc_khz)
    else:
        # Told over the control socket where the state comes from. Kernel and initramfs are in the memory already.
        argv += ("-incoming", "defer")
    argv += _disk(files, "rootfs", FileUse(launch.rootfs, os.O_RDONLY), read_only=True)
    argv += _disk(files, "scratch", FileUse(launch.paths.scratch, os.O_RDWR), read_only=False)
    for number, image in enumerate(launch.extra_disks):
        argv += _disk(files, f"extra{number}", FileUse(image, os.O_RDONLY), read_only=True)
    argv += _links(launch, files)
    argv += _exchange()
    argv += _control(launch, files)
    argv += _network(launch, files)
    return Command(tuple(argv), tuple(files.uses))


def _machine(launch: Launch, accelerator: str, *, in_parallel: bool) -> Iterator[str]:
    yield from ("-name", f"pyro-{launch.machine_id}")
    yield from ("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot")
    yield from ("-sandbox", SANDBOX)
    # ACPI announces the virtio-mmio devices: Debian's kernel takes none from the command line. The RTC stays on:
    # without it TCG boots 1.5 s slower.
    memory = ",memory-backend=mem" if launch.resume_from or launch.keep_memory_in else ""
    yield from ("-machine", f"microvm,acpi=on{memory}")
    threads = "multi" if in_parallel or launch.vcpu_count == 1 else "single"
    yield from ("-accel", "kvm" if accelerator == "kvm" else f"tcg,thread={threads}")
    yield from ("-cpu", "host" if accelerator == "kvm" else EMULATED_CPU)
    yield from ("-smp", str(launch.vcpu_count), "-m", f"{launch.mem_mib}M")


def _memory(launch: Launch, files: _Files) -> Iterator[str]:
    """The memory in a file: shared while a template is made, copy-on-write when machines go on from it."""
    if launch.resume_from is not None:
        # QEMU 7.2 opens it for writing all the same, and with its readonly=on the guest hangs.
        descriptor, share = files.add(FileUse(launch.resume_from.memory, os.O_RDONLY, lent=True)), "off"
    elif launch.keep_memory_in is not None:
        descriptor, share = files.add(FileUse(launch.keep_memory_in, os.O_RDWR)), "on"
    else:
        return
    backend = f"memory-backend-file,id=mem,size={launch.mem_mib}M,share={share}"
    yield from ("-object", f"{backend},mem-path=/proc/self/fd/{descriptor}")


def _kernel(launch: Launch, files: _Files, accelerator: str, tsc_khz: int | None) -> Iterator[str]:
    # Through /proc/self/fd: the VMM's user cannot walk the caller's directories, and need not.
    kernel = files.add(FileUse(launch.kernel, os.O_RDONLY))
    initramfs = files.add(FileUse(launch.initramfs, os.O_RDONLY))
    yield from ("-kernel", f"/proc/self/fd/{kernel}", "-initrd", f"/proc/self/fd/{initramfs}")
    yield from ("-append", " ".join(kernel_words(accelerator, tsc_khz, debug=launch.debug_console)))


def kernel_words(accelerator: str, tsc_khz: int | None, *, debug: bool) -> Iterator[str]:
    """The kernel's command line, word by word."""
    yield "console=ttyS0"
    yield from ("ignore_loglevel",) if debug else ("quiet", "loglevel=1")
    yield from ("reboot=t", "panic=-1")  # a panic ends the VMM at once (-no-reboot)
    yield from ("audit=0", "cryptomgr.notests", "random.trust_cpu=on")
    if accelerator == "tcg":
        # An emulated CPU does not speculate.
        yield "mitigations=off"
        # QEMU translates code anew at every address it is seen at. With addresses chosen at random for each process,
        # a shell that starts three programs has its C library translated four times: 17,000 blocks instead of 3,400.
        yield "norandmaps"
        # On a busy host the microvm machine cannot calibrate its TSC and spins for ever in one boot of four; told
        # the frequency, it never did.
        if tsc_khz:
            yield from (f"tsc_early_khz={tsc_khz}", "tsc=reliable", "no_timer_check")
    yield "pyro.link=serial"


def _disk(files: _Files, name: str, use: FileUse, *, read_only: bool) -> Iterator[str]:
    descriptor = files.add(use)
    yield from ("-add-fd", f"fd={descriptor},set={descriptor},opaque={name}")
    node = f"driver=file,node-name={name},filename=/dev/fdset/{descriptor},locking=off,auto-read-only=off"
    node += f",read-only={'on' if read_only else 'off'}"
    if not read_only:
        # The scratch disk lives as long as its machine: a flush has nothing to protect it for. Freed blocks go back
        # to the host.
        node += ",discard=unmap,cache.no-flush=on"
    yield from ("-blockdev", node)
    # A full disk of the host is an error the guest gets to see; QEMU's default would stop the machine without a word.
    yield from ("-device", f"virtio-blk-device,drive={name},serial={name},werror=report,rerror=report")


def _links(launch: Launch, files: _Files) -> Iterator[str]:
    yield from ("-device", f"virtio-serial-device,max_ports={LINKS + 1}")  # port 0 is reserved for a console
    for number in range(LINKS):
        descriptor = files.add(SocketUse(launch.paths.link(number)))
        yield from ("-chardev", f"socket,id=link{number},fd={descriptor},server=on,wait=off")
        yield from ("-device", f"virtserialport,nr={number + 1},chardev=link{number},name=pyro.link.{number}")


def _network(launch: Launch, files: _Files) -> Iterator[str]:
    if launch.network is None:
        return
    # The launcher's step before the VMM puts the TAP device behind the files; vhost would need another.
    descriptor = FIRST_DESCRIPTOR + len(files.uses)
    yield from ("-netdev", f"tap,id=uplink,fd={descriptor},vhost=off")
    yield from ("-device", f"virtio-net-device,netdev=uplink,mac={launch.network.colons}")


def _exchange() -> Iterator[str]:
    """Random numbers from the host, 64 KiB a second; and what memory the guest frees goes back, in pieces of 2 MiB."""
    yield from ("-object", "rng-builtin,id=random")
    yield from ("-device", "virtio-rng-device,rng=random,max-bytes=65536,period=1000")
    yield from ("-device", "virtio-balloon-device,free-page-reporting=on")


def _control(launch: Launch, files: _Files) -> Iterator[str]:
    descriptor = files.add(SocketUse(launch.paths.control))
    yield from (
        "-chardev",
        f"socket,id=control,fd={descriptor},server=on,wait=off",
        "-mon",
        "chardev=control,mode=control",
    )
    # The launcher reads it and keeps a bounded log.
    yield from ("-chardev", "stdio,id=console,signal=off,mux=off", "-serial", "chardev:console")
