"""The sockets: ZeroMQ with CURVE on an event loop, who may connect (ZAP), and an end to connections
that cost more than they bring.

May use ``transport``. What messages mean is not here: whoever opens a socket hands it a handler.
"""
