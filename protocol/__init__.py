"""What every part of p2pd speaks, as pure functions and values: no I/O, no torch.

Here is what all messages are made of: errors, text, addresses, identities, signed envelopes,
hashes. Above it stand ``protocol.statements`` (what somebody signs for all to keep),
``protocol.peers`` (what two peers say to each other) and ``protocol.servers`` (what peers and
servers say to each other).
"""
