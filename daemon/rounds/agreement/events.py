"""What a round's agreement asks of the round around it, or tells it.

Example (daemon/rounds/kinds/agreed_round.py)::

    while (event := self._agreement.next_event()) is not None:
        match event:
            case Decided(certificate):
                return certificate
            case Want(updates, holders):
                self._updates.ask(updates, holders)
"""

from dataclasses import dataclass

from protocol.identity import PeerId
from protocol.peers.agreement_messages import Certificate, UpdateRef


@dataclass(frozen=True, slots=True)
class Want:
    """These updates are needed to go on; the peers that listed them have them."""

    updates: tuple[UpdateRef, ...]
    holders: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class WantPromises:
    """The proposal of ``leader`` names promises that have not come here."""

    digests: tuple[bytes, ...]
    leader: PeerId


@dataclass(frozen=True, slots=True)
class Contradiction:
    """``signer`` said two different things where it may say one."""

    signer: PeerId
    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class Foul:
    """``signer`` sent what no honest peer sends, as was found out later."""

    signer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class Decided:
    """The round's outcome, with the proof."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class PromisedInTime:
    """Who promised in time, and who was waited for in vain."""

    in_time: frozenset[PeerId]
    late: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class Led:
    """``leader`` led a ballot, and proposed in time or not."""

    leader: PeerId
    in_time: bool


AgreementEvent = Want | WantPromises | Contradiction | Foul | Decided | PromisedInTime | Led
