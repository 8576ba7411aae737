"""The forwarder of sealed frames, with its limits.

Needs `transport` and `protocol`. Not in it: what the frames hold.
"""
