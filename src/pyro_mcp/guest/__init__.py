"""The host's side of the guest protocol (docs/protocol.md).

All that comes from a guest is bounded and checked here.
"""
