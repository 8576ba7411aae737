"""Admitted peers that send foul updates over the real wire: refused, counted, named in the log."""

import asyncio
import contextlib
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest
from torch import nn

from ml.state.tensor_file import FileTensor, TensorLayout, layout_of
from ml.training.model_tensors import manifest_of
from ml.update.codec import UpdateCodec
from ml.update.dense import Float32Encoding
from protocol.identity import Identity, PeerId, public_key_of
from protocol.peers.peer_messages import Standing, UpdateOffer
from tests.system import slow_task
from tests.system.real_swarm import (
    ROUND_S,
    RealPeer,
    RealSwarm,
    assert_equal_exports,
    assert_nobody_is_blamed,
    updates_averaged,
    wait_until,
)
from tests.system.shared.hostile_peer import Here, HostilePeer, flip_bit, hostile_peer, resigned
from tests.system.slow_swarm import SlowSwarm, halted, wait_round_of_all

FLIPS = 20
_random = Random(4)


def update_layout() -> TensorLayout:
    """How an update of the slow task's model looks."""
    model: nn.Module = slow_task.model()  # type: ignore[no-untyped-call]  # as users write it
    return UpdateCodec(manifest_of(model), Float32Encoding()).layout


def update_of(value: float) -> bytes:
    """An update whose every number is ``value``, integer ones aside."""
    layout = update_layout()
    content = bytearray(layout.size_bytes)
    content[: len(layout.header)] = layout.header
    for name, tensor in layout.tensors.items():
        if tensor.dtype == "F32":
            numbers = np.full(tensor.element_count, value, "<f4").tobytes()
            at = layout.offsets[name]
            content[at : at + len(numbers)] = numbers
    return bytes(content)


def update_of_wrong_shapes() -> bytes:
    """As long as a good one, but the first matrix stands on its side."""
    layout = update_layout()
    turned = layout_of(
        [
            FileTensor(tensor.name, tensor.dtype, tensor.shape[::-1])
            for tensor in layout.tensors.values()
        ],
        {"format": "p2pd-update-1"},
    )
    assert turned.size_bytes == layout.size_bytes
    return turned.header + bytes(turned.size_bytes - len(turned.header))


class Pickled:
    """Makes a directory wherever it is unpickled."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return os.mkdir, (self._place,)


@dataclass(frozen=True)
class Foul:
    """What one hostile peer does, and what has to be said of it."""

    code: str
    reason: str
    make: Callable[[HostilePeer, Here], list[UpdateOffer]]
    count: int = 1


def foul_updates(trap: Path, founder_key: bytes) -> dict[str, Foul]:
    stranger = Identity.generate()

    def good() -> bytes:
        """Another one each time, so that nobody fetches it from somebody else."""
        return update_of(_random.uniform(1e-6, 1e-3))

    def flipped_envelopes(peer: HostilePeer, here: Here) -> list[UpdateOffer]:
        offer = peer.offer(here, good())
        bits = _random.sample(range(8 * len(offer.header)), FLIPS)
        return [UpdateOffer(flip_bit(offer.header, bit), offer.leaves, offer.proof) for bit in bits]

    def forged(peer: HostilePeer, here: Here) -> list[UpdateOffer]:
        offer = peer.offer(here, good())
        as_itself = resigned(offer.header, signed_by=stranger, claims=peer.identity)
        as_founder = resigned(offer.header, signed_by=peer.identity, claims=founder_key)
        return [
            UpdateOffer(envelope, offer.leaves, offer.proof) for envelope in (as_itself, as_founder)
        ]

    def flipped_chunk(peer: HostilePeer, here: Here) -> list[UpdateOffer]:
        content = good()
        return [peer.offer(here, content, served=flip_bit(content, 8 * len(content) - 100))]

    return {
        "a bit of the envelope flipped": Foul("update-envelope", "", flipped_envelopes, FLIPS),
        "signed by another key": Foul("update-envelope", "signature", forged, 2),
        "signed by a stranger": Foul(
            "update-denied", "", lambda peer, here: [peer.offer(here, good(), signer=stranger)]
        ),
        "for another swarm": Foul(
            "update-envelope",
            "for swarm " + "07" * 8,
            lambda peer, here: [peer.offer(here, good(), swarm_id=b"\x07" * 32)],
        ),
        "of another round": Foul(
            "update-round",
            "update of round ",
            lambda peer, here: [peer.offer(Here(here.round + 7, here.base), good())],
        ),
        "from another base": Foul(
            "update-round",
            "from base " + "07" * 8,
            lambda peer, here: [peer.offer(Here(here.round, b"\x07" * 32), good())],
        ),
        "a bit of a chunk flipped": Foul(
            "chunk",
            "not what the blob's root promised",
            flipped_chunk,
        ),
        "wrong shapes": Foul(
            "update-content",
            "has shape",
            lambda peer, here: [peer.offer(here, update_of_wrong_shapes())],
        ),
        "NaN inside": Foul(
            "update-content",
            "NaN in the update",
            lambda peer, here: [peer.offer(here, update_of(float("nan")))],
        ),
        "pickle inside": Foul(
            "update-content",
            "pickle",
            lambda peer, here: [
                peer.offer(here, pickle.dumps(Pickled(trap)).ljust(len(good()), b"."))
            ],
        ),
        "a header of 2^63 bytes": Foul(
            "update-content",
            f"claims {2**63} bytes",
            lambda peer, here: [peer.offer(here, (2**63).to_bytes(8, "little") + good()[8:])],
        ),
        "a claim of 1 TiB": Foul(
            "update-content",
            f"blob of {2**40} bytes",
            lambda peer, here: [peer.offer(here, good(), size_bytes=2**40)],
        ),
        "a weight of no samples": Foul(
            "update-header",
            "sample count 0",
            lambda peer, here: [peer.offer(here, good(), sample_count=0)],
        ),
        "two updates of one round": Foul(
            "update-equivocation",
            "two updates of round ",
            lambda peer, here: [peer.offer(here, good()), peer.offer(here, update_of(1.0))],
        ),
    }


async def test_foul_updates_are_refused_counted_and_named_while_a_sound_one_is_averaged(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    honest = slow_swarm.peers
    trap = tmp_path / "unpickled"
    founder_key = public_key_of(PeerId(honest[0].status().peer_id))
    fouls = foul_updates(trap, founder_key)
    async with contextlib.AsyncExitStack() as stack:
        liars = {
            name: await stack.enter_async_context(connect(slow_swarm.swarm, name)) for name in fouls
        }
        sound = await stack.enter_async_context(connect(slow_swarm.swarm, "sound"))
        status = await asyncio.to_thread(stack.enter_context, halted(honest, 3))
        for name, liar in liars.items():
            here = await liar.find_here(len(honest))
            assert here.round == status.round + 1
            for offer in fouls[name].make(liar, here):
                liar.tell(offer)
        sound.tell(sound.offer(await sound.find_here(len(honest)), update_of(0.001)))
        await asyncio.to_thread(wait_counted, honest, liars, sound.peer_id, fouls)
    number = status.round + 1
    await asyncio.to_thread(wait_round_of_all, honest, number)

    assert not trap.exists()
    assert updates_averaged(honest, number) == {len(honest) + 1}
    assert_nobody_is_blamed(honest)
    await asyncio.to_thread(wait_round_of_all, honest, number + 2)
    assert_equal_exports(honest, tmp_path)


def connect(swarm: RealSwarm, name: str) -> contextlib.AbstractAsyncContextManager[HostilePeer]:
    statement = (swarm.directory / "founder" / "swarm.statement").read_bytes()
    return hostile_peer(name, swarm.link.read_text(), statement)


def wait_counted(
    honest: list[RealPeer],
    liars: dict[str, HostilePeer],
    sound: PeerId,
    fouls: dict[str, Foul],
) -> None:
    """Return when each honest peer has counted and named all liars, and accepted the sound one."""
    for peer in honest:
        for name, foul in fouls.items():
            liar = liars[name].peer_id

            def is_counted(liar: PeerId = liar, foul: Foul = foul, peer: RealPeer = peer) -> bool:
                return peer.sees_id(liar).rejects >= foul.count

            wait_until(f"{peer.name} counts the one with {name}", is_counted, ROUND_S)
            assert peer.sees_id(liar).rejects == foul.count
            assert peer.sees_id(liar).updates == 0 or foul.code == "update-equivocation"
            line = rf"refused from {liar} \({foul.code}, \d+ since last said\): .*{foul.reason}"
            assert re.search(line, peer.logged()), f"{peer.name} does not name the one with {name}"

        wait_taken(peer, sound)
        assert peer.sees_id(sound).rejects == 0


def wait_taken(peer: RealPeer, sender: PeerId) -> None:
    """Return when ``peer`` has accepted an update of ``sender``'s."""
    wait_until(
        f"{peer.name} takes the update of {sender}",
        lambda: peer.sees_id(sender).updates == 1,
        ROUND_S,
    )


async def test_peer_that_stands_ready_and_sends_rubbish_each_round_holds_nobody_up(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    honest = slow_swarm.peers
    async with connect(slow_swarm.swarm, "rubbish") as liar:
        sent: set[Here] = set()

        def follow(peer: PeerId, standing: Standing) -> None:
            here = Here(standing.round + 1, standing.base)
            if standing.started and here not in sent:
                sent.add(here)
                liar.stand(here)
                liar.tell(liar.offer(here, update_of(float("nan"))))

        await liar.find_here(len(honest))
        liar.on_standing = follow
        number = slow_swarm.last_round() + 5
        await asyncio.to_thread(wait_round_of_all, honest, number)
        for peer in honest:
            await asyncio.to_thread(
                wait_until,
                f"{peer.name} refuses what it is sent each round",
                lambda peer=peer: peer.sees_id(liar.peer_id).rejects >= 3,
                ROUND_S,
            )
    assert_nobody_is_blamed(honest)
    assert_equal_exports(honest, tmp_path)


@pytest.mark.parametrize("split", [1, 2])
async def test_peers_that_were_told_different_updates_average_the_same_set(
    slow_swarm: SlowSwarm, tmp_path: Path, split: int
) -> None:
    honest = slow_swarm.peers
    ids = [PeerId(peer.status().peer_id) for peer in honest]
    async with connect(slow_swarm.swarm, "two-faced") as liar:
        await liar.find_here(len(honest))
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, halted(honest, 3))
            here = await liar.find_here(len(honest))
            offers = (liar.offer(here, update_of(0.0)), liar.offer(here, update_of(1.0)))
            for index, peer_id in enumerate(ids):
                liar.tell(offers[index < split], only=peer_id)
            for peer in honest:
                await asyncio.to_thread(wait_taken, peer, liar.peer_id)
        await asyncio.to_thread(wait_round_of_all, honest, here.round + 1)
    assert len(updates_averaged(honest, here.round)) == 1
    assert_equal_exports(honest, tmp_path)
