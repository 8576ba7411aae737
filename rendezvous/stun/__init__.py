"""STUN messages and the STUN server (RFC 8489, RFC 5780).

Needs `transport`. Not in it: conclusions about NATs (`daemon.net.nat`).
"""
