"""How peers find each other. What a peer needs; the server is :mod:`rendezvous.server.service`."""

from rendezvous.client.client import RendezvousClient

__all__ = ["RendezvousClient"]
