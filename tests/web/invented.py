"""An invented peer for the page to show: of any number of peers, without network or training.

``python -m tests.web.invented PEERS`` serves it and prints the page's address.
"""

import asyncio
import math
import random
import sys

from daemon.control.health import peer_unreachable, updates_rejected
from daemon.control.history import History
from daemon.control.status import PeerStatus, RelayStatus, RendezvousStatus, Status
from daemon.rounds.record.round_record import PhaseSpan, RoundRecord
from daemon.web.page_server import PageServer
from protocol.metric import MetricValue

NOW = 1_700_000_000.0
ROUNDS = 40
LETTERS = "abcdefghijklmnopqrstuvwxyz"
EVIL_NAME = '\x1b[2J<img src=x onerror="alert(1)">\u202e'


def peer_id(index: int) -> str:
    """52 letters, as ids have them; unlike each other from the first on."""
    chosen = random.Random(1000 + index)
    return "".join(chosen.choice(LETTERS) for _ in range(52))


class InventedPeer:
    """Has as many others around it as asked for, one of them relayed, one refused, one lost."""

    def __init__(self, others: int) -> None:
        chance = random.Random(1)
        kinds = ("direct", "relay", "punched", "ice")
        self._peers = tuple(
            PeerStatus(
                peer_id=peer_id(index),
                name=f"peer-{index}" if index != 3 else EVIL_NAME,
                path="failed" if index == 4 else kinds[index % 2 if others < 5 else index % 4],
                reason="nothing was found out so far"
                if index == 4
                else "direct: nobody answers there; punched: its router maps each destination"
                " to another port"
                if index % 2
                else "there is no better kind",
                address="192.0.2.7:6000",
                rtt_ms=None if index == 4 else round(chance.lognormvariate(3, 1), 1),
                round=ROUNDS - (index == 2),
                round_lag=int(index == 2),
                bytes_sent=chance.randrange(10**8),
                bytes_received=chance.randrange(10**9),
                last_update_s=chance.random() * 60,
                updates=ROUNDS,
                rejects=7 if index == 1 else 0,
                last_reject_s=12.0 if index == 1 else None,
                last_reject="update-content: layer1.weight holds NaN" if index == 1 else "",
            )
            for index in range(others)
        )
        self._rounds = [self._round(number, chance) for number in range(1, ROUNDS + 1)]

    def _round(self, number: int, chance: random.Random) -> RoundRecord:
        spans, at = [], 0.0
        for phase, usual in (
            ("training", 6.0), ("exchanging", 2.0), ("agreeing", 0.4), ("applying", 1.2),
        ):  # fmt: skip
            seconds = usual * chance.uniform(0.7, 1.6)
            spans.append(PhaseSpan(phase=phase, start_s=at, seconds=seconds))
            at += seconds
        level = 2.3 * math.exp(-number / 12) + 0.1
        ids = [peer_id(-1), *(peer.peer_id for peer in self._peers)]
        return RoundRecord(
            round=number,
            started_at=NOW - 12.0 * (ROUNDS + 1 - number),
            seconds=at,
            phases=spans,
            losses={one: level * chance.uniform(0.75, 1.3) for one in ids},
            updates=len(ids),
            loss=level,
            accuracy=0.97 - 0.8 * math.exp(-number / 8),
            evaluated_by=peer_id(0) if number == ROUNDS else "",
            metrics=[
                MetricValue("accuracy", 0.97 - 0.8 * math.exp(-number / 8), "higher", ".1%"),
                MetricValue("rmse", 3 * level, "lower", ".2f"),
            ],
        )

    def status(self) -> Status:
        relayed = tuple(peer.name for peer in self._peers[1:2])
        lost = tuple(peer.name for peer in self._peers if peer.path == "failed")
        return Status(
            version="0.1.0",
            peer_id=peer_id(-1),
            name="alice",
            swarm="handwriting",
            swarm_id="s" * 52,
            task="mnist",
            shard=f"0/{len(self._peers) + 1}",
            phase="exchanging",
            round=ROUNDS,
            rounds=100,
            loss=self._rounds[-1].loss,
            accuracy=self._rounds[-1].accuracy,
            metrics=tuple(self._rounds[-1].metrics),
            evaluated_round=ROUNDS,
            evaluated_by=self._rounds[-1].evaluated_by,
            evaluate="turn",
            training_loss=0.15,
            uptime_s=612.0,
            pid=1,
            rendezvous=RendezvousStatus(
                uri="p2p://" + "a" * 52 + "@127.0.0.1:5555", state="connected", clock_offset_ms=3.0
            ),
            relays=(RelayStatus(uri="p2p://" + "a" * 52 + "@127.0.0.1:5600", state="ready"),),
            peers=self._peers,
            updates_received=len(self._peers) * ROUNDS,
            updates_rejected=7,
            bytes_sent=123_456_789,
            bytes_received=987_654_321,
            health=(
                *((updates_rejected(relayed, 7),) if relayed else ()),
                *((peer_unreachable(lost, has_relays=True, lost_relays=()),) if lost else ()),
            ),
        )

    def history(self, after: int) -> History:
        slow = [peer.peer_id for peer in self._peers[2:3]]
        return History(
            peer_id=peer_id(-1),
            now=NOW,
            rounds=[one for one in self._rounds if one.round > after],
            current=RoundRecord(
                round=ROUNDS + 1,
                started_at=NOW - 9.5,
                phases=[
                    PhaseSpan(phase="training", start_s=0.0, seconds=6.2),
                    PhaseSpan(phase="exchanging", start_s=6.2),
                ],
            ),
            waits_for=slow,
            closes_in_s=18.0,
        )


async def serve(others: int) -> None:
    async with PageServer(InventedPeer(others)) as server:
        print(await server.start(), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
