"""Acts on what is known of another daemon with this peer's identity (daemon/net/twin.py)."""

import asyncio
import logging

from daemon.net.own_record import OwnRecord
from daemon.net.peers.book import PeerBook
from daemon.net.twin import TwinWatch
from protocol.statements.peer_record import VerifiedRecord
from transport.clock import Clock

_log = logging.getLogger("p2pd.network")


class TwinGuard:
    """Tells the other one that this one lives, and gives way if that one started later."""

    def __init__(
        self, watch: TwinWatch, own_record: OwnRecord, book: PeerBook, clock: Clock
    ) -> None:
        self.watch = watch
        self.stood_down = asyncio.Event()
        """Set once this process has given way; for good."""
        self._own_record = own_record
        self._book = book
        self._clock = clock

    def heard(self, record: VerifiedRecord) -> None:
        """A process with this identity sent a signal: this one, or another one."""
        if self.watch.note_signal(record, self._clock.monotonic()):
            self._own_record.sign_anew()
            self._give_way_if_later()

    def found(self, record: VerifiedRecord) -> bool:
        """A rendezvous has ``record`` for this identity. True: another process signed it, which is
        to be told of this one."""
        is_another = self.watch.note_found(record, self._clock.monotonic())
        self._give_way_if_later()
        return is_another

    def _give_way_if_later(self) -> None:
        if self.watch.stands_down() and not self.stood_down.is_set():
            self.stood_down.set()
            _log.error(
                "another daemon with this peer's identity started later: this one takes no part any"
                " more"
            )
            self._book.close("another daemon has this identity")
