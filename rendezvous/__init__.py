"""How peers find each other: the rendezvous' server and its client."""

from rendezvous.client import RendezvousClient
from rendezvous.registry_limits import RegistryLimits
from rendezvous.server import serve_rendezvous

__all__ = ["RegistryLimits", "RendezvousClient", "serve_rendezvous"]
