from tests.transport.loopback import context, echo, serve_echo

__all__ = ["context", "echo", "serve_echo"]
