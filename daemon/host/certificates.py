"""The certificates of this machine, of which p2pd has no use: its peers know each other's keys."""

import os
from contextlib import AbstractContextManager

from daemon.host.environment import environment_variable


def certificates_unread() -> AbstractContextManager[None]:
    """Import aiohttp, or what imports it, without reading them.

    It makes two TLS contexts as it is imported, and each reads all authorities that the system
    trusts: some 50 ms for 144 of them. p2pd serves plain HTTP to this machine, and
    asks routers for ports, which is plain HTTP too.

    Example (daemon/cli/join.py)::

        with collector_off(), certificates_unread():
            from daemon.cli.watch.join_view import JoinView
    """
    # It names another file than the system's (OpenSSL, SSL_CTX_set_default_verify_paths(3)).
    return environment_variable("SSL_CERT_FILE", os.devnull)
