"""A swarm as a user's own training script has it: joined, stepped, left.

Needs the trainer's end of the channel, which lies beside this room. Not in it: p2pd's own loop over
task files (ml/training). Torch only in `ranks`, `replica` and `inner_state`, which are
loaded with a model.
"""
