"""Ports that a test names before a program listens on them.

A port that was got by binding to port 0 and let go again may be given to anybody in between: to a
test in another process, or as the source of some connection. These lie below the ports that the
kernel gives to those who ask for any, and each process that runs tests has a range of its own.
"""

import errno
import itertools
import os
import socket

FIRST = 21_000
RANGE = 1_000
RANGES = 11
"""They end below 32768, where the ports begin that the kernel gives."""
_HOSTS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))


def _own_range() -> range:
    """Of this process: by its number among those that run tests together."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % RANGES
    return range(FIRST + number * RANGE, FIRST + (number + 1) * RANGE)


STRIDE = 4
"""A rendezvous answers STUN on the ports behind its own; two servers that start at one moment must
not be given neighbours."""
# Two test runs on one machine begin at different places.
_offsets = itertools.count(os.getpid() * 37, STRIDE)


def free_port(neighbours: int = 0) -> int:
    """A port that nobody has, for UDP and TCP on any address of this machine; nor the next ones."""
    ports = _own_range()
    for _ in ports:
        port = ports[next(_offsets) % len(ports)]
        if all(_is_free(one) for one in range(port, port + neighbours + 1)):
            for _ in range(neighbours):
                next(_offsets)
            return port
    raise AssertionError(f"all ports from {ports[0]} to {ports[-1]} are taken")


def _is_free(port: int) -> bool:
    for family, host in _HOSTS:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(family, kind) as probe:
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
    return True
