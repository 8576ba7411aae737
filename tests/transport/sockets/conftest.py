from tests.transport.sockets.loopback import context, echo, serve_echo

__all__ = ["context", "echo", "serve_echo"]
