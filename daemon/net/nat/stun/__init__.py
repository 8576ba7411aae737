"""Asks STUN servers for the public address of a socket, over UDP and TCP.

Needs `rendezvous.stun` for the messages. Not in it: conclusions from the answers (`behavior`).
"""
