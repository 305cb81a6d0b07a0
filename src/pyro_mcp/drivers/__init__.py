"""Drivers: one virtual machine monitor each, behind the small protocol in ``base``."""
