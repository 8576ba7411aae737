"""ZeroMQ on asyncio, and what every program with a network and a disk needs: addresses, rates,
keys, clocks, files that are whole.

The sockets have a room of their own, ``transport.sockets``; it may use what is here, and nothing
here uses it. May use ``protocol``. Nothing here knows what is said over a socket.
"""
