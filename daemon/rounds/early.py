"""Agreement messages that came before their time: others are a moment ahead. Bounded.

A peer in round r keeps messages of round r + 1: one of each kind of each signer, and only of peers
that it knows. All others are refused.
"""

from protocol.errors import VerificationError
from protocol.identity import PeerId
from protocol.peers.agreement_messages import MAX_ROSTER

MAX_MESSAGE_BYTES = 128 << 10
"""The promise of the largest roster takes less."""
MAX_BYTES = 16 << 20
MAX_MESSAGES = 4 * MAX_ROSTER


class EarlyMessages:
    """What waits for the next round."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[PeerId, str], tuple[int, PeerId, bytes]] = {}
        self._bytes = 0

    def add(
        self, source: PeerId, signer: PeerId, kind: str, round_number: int, envelope: bytes
    ) -> None:
        """Keep a message that ``source`` sent; the latest of its signer and kind. Raises
        :class:`VerificationError` when it is too large, or too much waits already."""
        if len(envelope) > MAX_MESSAGE_BYTES:
            raise VerificationError(f"early {kind} of {len(envelope)} bytes from {signer}")
        _, _, before = self._waiting.get((signer, kind), (0, source, b""))
        total = self._bytes - len(before) + len(envelope)
        if total > MAX_BYTES or (not before and len(self._waiting) >= MAX_MESSAGES):
            raise VerificationError(f"early {kind} from {signer}: too much waits already")
        self._bytes = total
        self._waiting[(signer, kind)] = (round_number, source, envelope)

    def take(self, round_number: int) -> list[tuple[PeerId, bytes]]:
        """What waited for that round, with who sent it; nothing waits any more."""
        waiting, self._waiting, self._bytes = self._waiting, {}, 0
        return [
            (source, envelope) for at, source, envelope in waiting.values() if at == round_number
        ]
