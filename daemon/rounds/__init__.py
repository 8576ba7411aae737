"""Training in step with the others: one round, and what happens between rounds.

Needs `worker`, `swarm` and `net`. Not in it: numbers (`ml`), and how messages travel (`net`).
"""
