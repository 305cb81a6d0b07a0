"""The host: the one door to programs, deadlines, atomic files, locks, processes and what the machine can do."""
