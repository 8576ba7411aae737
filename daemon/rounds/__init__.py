"""Training in step with the others: one round, and what happens between rounds.

The door is :class:`daemon.rounds.rounds.Rounds`: it puts the parts together, from what a peer
brings (`parts.RoundsSetup`) and its way to the others (`mail.Mail`). From there downwards::

    rounds    the parts, put together
    inbox     each message to the part that it concerns
    training  the loop: gathers peers, runs rounds, catches up, rests
    at_hand   the round that runs now, and the agreement messages for it
    kinds/    one round, of each kind
    evaluation/ how good the states are, and whose word that is
    updates   the updates of a round: offered, fetched, checked
    parts     what all of these work with
    lineage/  which states this peer's came from, and where the others stand
    record/   what is remembered of rounds, for people
    blobs/    model bytes on disk and between peers

Needs `worker`, `swarm` and `net`. Not in it: numbers (`ml`), and how messages travel (`net`).
"""
