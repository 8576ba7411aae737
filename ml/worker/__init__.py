"""The process that owns the tensors: its messages, the learner, the journal of rounds.

Needs every room of `ml`. Not in it: sockets to other machines.
"""
