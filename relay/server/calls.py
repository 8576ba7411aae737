"""Opening and ending of links: calls, the called peer's consent, and goodbyes. Sans-IO.

When a link ends, both ends are told and each confirms. An end that has confirmed has read all that
was sent to it before, and nothing of the link lies in the relay for it any more. Until then the
link counts against its limits, so ending links does not get around them.
"""

from collections import Counter
from collections.abc import Iterator
from random import Random

from protocol.errors import RemoteProtocolError
from protocol.servers.relay_messages import (
    MAX_CONSENTED_KEYS,
    MAX_RECORDS,
    Answer,
    Close,
    Closed,
    Code,
    Consent,
    Incoming,
    NotOpened,
    Open,
    Opened,
)
from relay.server.credit_gate import CreditGate
from relay.server.limits import RelayLimits
from relay.server.links import ConnectedPeer, ConsentRule, LinkState, Outgoing, RelayedLink
from relay.server.peer_table import PeerTable

RETRY_S = 5.0
"""The pause before a link that met a limit may be asked for again."""

LINK_NUMBER_BITS = 63
"""Random ones, so that no number of an earlier run comes again."""


class Switchboard:
    """All links of the relay."""

    def __init__(
        self,
        limits: RelayLimits,
        peers: PeerTable,
        gate: CreditGate,
        outgoing: Outgoing,
        random: Random,
    ) -> None:
        """``random`` gives the links' numbers."""
        self._limits = limits
        self._peers = peers
        self._gate = gate
        self._outgoing = outgoing
        self._random = random
        self.links: dict[int, RelayedLink] = {}
        self.refused: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()

    def set_consent(self, peer: ConnectedPeer, message: Consent) -> None:
        """The peers that ``peer`` talks to. Raises :class:`RemoteProtocolError` when it names too
        many."""
        peer.consents.pop(message.swarm, None)
        named = sum(len(consent.keys) for consent in peer.consents.values()) + len(message.keys)
        if named > MAX_CONSENTED_KEYS or len(peer.consents) >= MAX_RECORDS:
            raise RemoteProtocolError(f"consent to {named} keys in {len(peer.consents) + 1} swarms")
        peer.consents[message.swarm] = ConsentRule(frozenset(message.keys), message.ask)

    def open(self, opener: ConnectedPeer, message: Open, now: float, *, too_often: bool) -> None:
        """``opener`` wants a link; ``too_often``: it sends more requests than it may."""
        if message.curve_key:
            called = self._peers.find(message.curve_key)
        else:
            called = self._peers.find_identity(message.swarm, message.peer)
        request = message.request
        quota_wait_s = opener.account.quota_wait_s(now)
        if too_often:
            self._refuse(opener, request, Code.THROTTLED, "too many requests", RETRY_S)
        elif quota_wait_s:
            self._refuse(opener, request, Code.QUOTA, "no bytes left of its quota", quota_wait_s)
        elif len(opener.links) >= self._limits.max_links_per_peer:
            self._refuse(opener, request, Code.QUOTA, f"it has {len(opener.links)} links", RETRY_S)
        elif called is None:
            self._refuse(opener, request, Code.PEER_GONE, "not connected to this relay")
        elif called is opener:
            self._refuse(opener, request, Code.FORBIDDEN, "a link to itself")
        elif len(called.links) >= self._limits.max_links_per_peer:
            self._refuse(
                opener,
                request,
                Code.QUOTA,
                f"the other peer has {len(called.links)} links",
                RETRY_S,
            )
        else:
            self._call(opener, called, message, now)

    def answer(self, peer: ConnectedPeer, message: Answer, now: float) -> None:
        """``peer`` agrees to a link that it was asked about, or does not."""
        link = peer.links.get(message.link)
        if link is None or link.called is not peer or link.state is not LinkState.ASKED:
            return  # Over meanwhile, and it was told.
        if message.agreed:
            self._connect(link, now)
        else:
            self._detach(link, peer)
            self.end(link, Code.FORBIDDEN, "the other peer refused", now)

    def close(self, peer: ConnectedPeer, message: Close, now: float) -> None:
        """``peer`` ends a link, or confirms its end."""
        link = peer.links.get(message.link)
        if link is not None:
            self._detach(link, peer)
            self.end(link, Code.CLOSED, message.reason, now)

    def peer_gone(self, peer: ConnectedPeer, now: float) -> None:
        """All links of ``peer`` end."""
        for link in tuple(peer.links.values()):
            self._detach(link, peer)
            self.end(link, Code.PEER_GONE, "the other peer's connection ended", now)

    def end(self, link: RelayedLink, code: Code, text: str, now: float) -> None:
        """End ``link`` for those who still have it."""
        if link.state is LinkState.CLOSING:
            return
        was_asked = link.state is LinkState.ASKED
        link.state = LinkState.CLOSING
        link.active_at = now
        if not was_asked:
            self.closed[code.value] += 1
        for peer in tuple(link.ends()):
            if was_asked and peer is link.opener:
                # It has not heard of the link, only of its own request.
                self._detach(link, peer)
                self._refuse(peer, link.request, code, text)
            else:
                self._outgoing.send(peer, Closed(link.number, code.value, text))

    def sweep(self, now: float) -> Iterator[ConnectedPeer]:
        """End what is idle or was not answered; yields the peers that take nothing any more."""
        for link in tuple(self.links.values()):
            quiet_s = now - link.active_at
            match link.state:
                case LinkState.ASKED if quiet_s > self._limits.consent_timeout_s:
                    self.end(link, Code.PEER_GONE, "the other peer did not answer", now)
                case LinkState.OPEN if quiet_s > self._limits.idle_s:
                    self.end(link, Code.IDLE, f"no data for {quiet_s:.0f} s", now)
                case LinkState.OPEN:
                    for direction in link.directions.values():
                        if direction.unread and now - direction.progress_at > self._limits.stall_s:
                            yield direction.receiver
                case LinkState.CLOSING if quiet_s > self._limits.stall_s:
                    yield from tuple(link.ends())

    def forgive(self, pause_s: float) -> None:
        """This process stood still for so long: nobody is to blame for being quiet meanwhile."""
        for link in self.links.values():
            link.active_at += pause_s
            for direction in link.directions.values():
                direction.progress_at += pause_s

    def _call(
        self, opener: ConnectedPeer, called: ConnectedPeer, message: Open, now: float
    ) -> None:
        agreed = called.agrees_to(opener, message.swarm)
        if agreed is False:
            self._refuse(opener, message.request, Code.FORBIDDEN, "the other peer does not want it")
            return
        if agreed is None:
            asks = sum(link.state is LinkState.ASKED for link in called.links.values())
            if asks >= self._limits.max_asks_per_peer:
                text = f"{asks} peers wait for the other peer's answer already"
                self._refuse(opener, message.request, Code.THROTTLED, text, RETRY_S)
                return
        number = self._random.getrandbits(LINK_NUMBER_BITS)
        link = RelayedLink(number, message.swarm, opener, called, message.request, now)
        self.links[number] = opener.links[number] = called.links[number] = link
        self._outgoing.send(
            called, Incoming(number, message.swarm, opener.curve_key, agreed=agreed is True)
        )
        if agreed:
            self._connect(link, now)

    def _connect(self, link: RelayedLink, now: float) -> None:
        link.open(now)
        self._outgoing.send(link.opener, Opened(link.request, link.number, link.called.curve_key))
        for direction in link.directions.values():
            self._gate.opened(direction, now)

    def _refuse(
        self, opener: ConnectedPeer, request: int, code: Code, text: str, retry_after_s: float = 0.0
    ) -> None:
        self.refused[code.value] += 1
        self._outgoing.send(opener, NotOpened(request, code.value, text, retry_after_s))

    def _detach(self, link: RelayedLink, peer: ConnectedPeer) -> None:
        """``peer`` has done with the link: nothing of it lies here for it any more."""
        direction = link.towards(peer)
        if direction is not None:
            self._gate.release(direction)
        del peer.links[link.number]
        if not any(True for _ in link.ends()):
            del self.links[link.number]
