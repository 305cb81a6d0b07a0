"""Ports of the guest as ports of this host: through the agent, without any network of the guest's own."""
