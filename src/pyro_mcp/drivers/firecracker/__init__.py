"""Firecracker, jailed: the agent is reached over vsock through Firecracker's Unix socket."""

from pyro_mcp.drivers.firecracker.driver import FirecrackerDriver

__all__ = ["FirecrackerDriver"]
