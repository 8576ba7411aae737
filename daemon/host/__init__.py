"""The process and the machine: clock, log, systemd, state directory, child processes.

Needs nothing of `daemon`. Not in it: anything that knows of peers, swarms or models.
"""
