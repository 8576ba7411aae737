"""What somebody signs and others keep: swarm, admission, invite, a peer's record, and the sequence
numbers that tell which is the newer.

May use what stands right in ``protocol``. What is said once and answered is not here: see
``protocol.peers`` and ``protocol.servers``.
"""
