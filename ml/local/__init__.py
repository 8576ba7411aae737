"""What this peer adds to a round: local steps, and the update that they make.

Needs `rules`, `aggregate`, `update`, `state` and `task`. Not in it: other peers' updates.
"""
