"""What every guest starts from: the kernel, the initramfs with our agent, and an empty scratch disk."""

from pyro_mcp.runtime.agent import Agent, find_agent
from pyro_mcp.runtime.build import RuntimeReport, ensure, inspect, verify
from pyro_mcp.runtime.manifest import Runtime
from pyro_mcp.runtime.scratch import empty_scratch

__all__ = ["Agent", "Runtime", "RuntimeReport", "empty_scratch", "ensure", "find_agent", "inspect", "verify"]
