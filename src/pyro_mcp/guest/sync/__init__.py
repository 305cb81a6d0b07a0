"""Files over the guest protocol: the records of both directions, a push, and a walk of what the guest has."""
