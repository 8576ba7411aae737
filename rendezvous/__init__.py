"""How peers find each other. What a peer needs; the server is :mod:`rendezvous.server`."""

from rendezvous.client import RendezvousClient

__all__ = ["RendezvousClient"]
