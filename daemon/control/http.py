"""How this program serves HTTP, wherever it does: bounded headers, no access log."""

from aiohttp import web

MAX_HEADER_BYTES = 8 * 1024
KEEPALIVE_S = 30.0
STOP_S = 1.0


def bounded_runner(
    application: web.Application, *, keepalive_s: float = KEEPALIVE_S, stop_s: float = STOP_S
) -> web.AppRunner:
    """Runs ``application``.

    ``keepalive_s``: a connection over which nothing is asked for so long is ended; ``stop_s``: how
    long answers that are being sent have when it is stopped.

    Example (daemon/control/api.py)::

        self._runner = bounded_runner(application, keepalive_s=IDLE_CONNECTION_S, stop_s=STOP_S)
    """
    return web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=keepalive_s,
        shutdown_timeout=stop_s,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
    )
