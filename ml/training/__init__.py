"""The trainer: the process that runs a user's model, data and optimizer.

p2pd's own loop over task files. It speaks with the daemon through the package `p2pd`, and sees
only states that the averager has verified. Needs `rules` and `task`. Not in it: other peers'
updates, files of states.
"""
