"""Messages to and from the peers of one swarm, whatever lies in between.

Needs `host`, and the clients of `rendezvous` and `relay`. Not in it: what the messages mean
(`rounds`), and who may be in a swarm (`swarm`).
"""
