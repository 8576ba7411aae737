"""Members that break no rule that could be proven, and only cost the others time."""

import asyncio
from collections.abc import Sequence

import msgspec

from protocol.codec import decode, encode
from protocol.peers.agreement_messages import Promise, Proposal
from protocol.peers.peer_messages import Agreement, PeerMessage
from tests.rounds.liars.byzantine_swarm import open_agreement, sealed, tell
from tests.rounds.simulated_swarm import SimulatedPeer, SimulatedSwarm

WASTES = (
    "says nothing",
    "never leads",
    "leads at the last moment",
    "leads foully",
    "leads by promises that nobody has",
    "promises at the last moment",
    "gives no bytes",
    "gives bytes to one",
)
LAST_MOMENT_S = {"promises at the last moment": 1.9, "leads at the last moment": 19.0}
NOTHING = b""


class TimeWaster:
    """Makes a simulated peer waste the others' time in one way."""

    def __init__(self, peer: SimulatedPeer, how: str) -> None:
        self._peer = peer
        self._how = how
        self._sent: set[bytes] = set()
        self._favourite = min(other for other in peer.swarm.peers if other != peer.id)
        peer.rewrite = self._rewrite
        if how in ("gives no bytes", "gives bytes to one"):
            peer.swarm.lines_down |= {
                (peer.id, other)
                for other in peer.swarm.peers
                if how == "gives no bytes" or other != self._favourite
            }

    def _rewrite(self, data: bytes, bulk: bool) -> bytes:
        message = None if bulk else decode(data, PeerMessage)
        if not isinstance(message, Agreement):
            return data
        signed, content = open_agreement(self._peer, message.envelope)
        if signed.signer != self._peer.id:
            return data
        match self._how, content:
            case "says nothing", _:
                return NOTHING
            case "never leads", Proposal():
                return NOTHING
            case "leads foully", Proposal():
                outcome = msgspec.structs.replace(content.outcome, updates=())
                return encode(sealed(self._peer, msgspec.structs.replace(content, outcome=outcome)))
            case "leads by promises that nobody has", Proposal():
                promises = tuple(bytes([number]) * 32 for number in range(3))
                return encode(
                    sealed(self._peer, msgspec.structs.replace(content, promises=promises))
                )
            case "promises at the last moment", Promise():
                return self._later(message)
            case "leads at the last moment", Proposal():
                return self._later(message)
        return data

    def _later(self, message: Agreement) -> bytes:
        if message.envelope not in self._sent:
            self._sent.add(message.envelope)
            asyncio.get_running_loop().call_later(
                LAST_MOMENT_S[self._how], tell, self._peer, message
            )
        return NOTHING


async def seconds_each_round(
    swarm: SimulatedSwarm, count: int, liars: int, how: str, rounds: int
) -> Sequence[float]:
    """How long each round takes the honest when so many of ``count`` waste time so."""
    peers = [swarm.add() for _ in range(count)]
    await swarm.until_round(2, within_s=60)
    honest = peers[liars:]
    for peer in peers[:liars]:
        TimeWaster(peer, how)
    first = max(peer.round for peer in honest)
    await swarm.until_round(first, *honest, within_s=100)
    return [
        await swarm.until_round(number, *honest, within_s=200)
        for number in range(first + 1, first + rounds + 1)
    ]
