"""`p2pd demo`: a whole swarm on this machine, for a first look.

Needs `swarm`, `control` and `host`; it starts `p2pd` commands as processes. Not in it: anything
that a real swarm runs.
"""
