"""How a swarm grows: the product's own rounds in virtual time, with ever more peers.

The swarm of tests/rounds/simulated_swarm.py, with lines of a rate and a delay, peers that come and
go, and peers that lie. Each swarm runs in a process of its own, on one core.
"""
