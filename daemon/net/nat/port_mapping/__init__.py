"""Asks the router for a port of its own: PCP, NAT-PMP, UPnP.

Needs no other room of `nat`. Not in it: STUN.
"""
