"""The ZeroMQ context of a process that talks to many."""

import zmq

from transport.sockets.connection_table import descriptor_budget

_LIBZMQ_DEFAULT = 1023


def make_context() -> "zmq.Context[zmq.Socket[bytes]]":
    """A context that can have as many sockets as there are file descriptors for; to be entered.

    libzmq's own limit is 1023 however many the process may have. Each connection that this side
    makes takes three sockets.

    >>> with make_context() as context:
    ...     context.get(zmq.MAX_SOCKETS) >= 1023
    True
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    most = min(int(context.get(zmq.SOCKET_LIMIT)), max(_LIBZMQ_DEFAULT, descriptor_budget()))
    context.set(zmq.MAX_SOCKETS, most)  # Counts only before the first socket is made.
    return context
