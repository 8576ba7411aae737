"""`p2pd export`: a peer's model as a file, whether the peer runs or not.

Needs `control` and `host`; what loads a model or a checkpoint are programs of `ml`. Not in it: how
states are kept.
"""
