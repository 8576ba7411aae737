"""What peers and the two servers, rendezvous and relay, say to each other.

May use ``protocol``. What a server keeps or forwards is not here: it is sealed or signed by peers.
"""
