"""What the NAT does, concluded from the answers of STUN servers (RFC 4787, RFC 5780).

Needs `nat.stun`. Not in it: asking a router for ports (`port_mapping`).
"""
