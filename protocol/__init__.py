"""The language of all parts of p2pd, as pure functions and values: no I/O, no torch.

Here are the pieces of all messages: errors, text, addresses, identities, signed envelopes,
hashes. Above it stand ``protocol.statements`` (what somebody signs for all to keep),
``protocol.peers`` (what two peers say to each other) and ``protocol.servers`` (what peers and
servers say to each other).
"""
