"""What lies between this machine and the internet: addresses, NAT behaviour, mapped ports.

Needs `host` and `rendezvous.stun`. Not in it: connections to peers (`paths`).
"""
