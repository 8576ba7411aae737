"""Which swarm it is and who is in it: founding, changing, joining, admission.

Needs `worker` and `host`. Not in it: connections to its members (`net`).
"""
