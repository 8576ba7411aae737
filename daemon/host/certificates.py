"""The certificates of this machine, of which p2pd has no use: its peers know each other's keys."""

import contextlib
import os
from collections.abc import Iterator

_FILE = "SSL_CERT_FILE"
"""Names another file than the system's (OpenSSL, SSL_CTX_set_default_verify_paths(3))."""


@contextlib.contextmanager
def certificates_unread() -> Iterator[None]:
    """Import aiohttp, or what imports it, without reading them.

    It makes two TLS contexts as it is imported, and each reads all authorities that the system
    trusts: a tenth of what a daemon takes to start. p2pd serves plain HTTP to this machine, and
    asks routers for ports, which is plain HTTP too.

    Example (daemon/cli/join.py)::

        with collector_off(), certificates_unread():
            from daemon.peer_process import run_peer
    """
    before = os.environ.get(_FILE)
    os.environ[_FILE] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FILE]
        else:
            os.environ[_FILE] = before
