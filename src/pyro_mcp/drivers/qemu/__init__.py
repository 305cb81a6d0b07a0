"""QEMU's ``microvm`` machine, with KVM or plain software emulation (TCG); the agent is reached over virtio-serial."""

from pyro_mcp.drivers.qemu.driver import QemuDriver

__all__ = ["QemuDriver"]
