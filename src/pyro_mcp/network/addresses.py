"""The addresses and devices of a machine's network: the same in every namespace, because each machine has its own."""

TAP = "tap0"
UPLINK = "uplink0"
GUEST = "172.29.1.2"
GATEWAY = "172.29.1.1"
PREFIX = 24
SUBNET = "172.29.1.0/24"
