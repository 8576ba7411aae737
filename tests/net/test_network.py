"""Real networks on loopback: who gets a session, and what passes through it."""

from tests.net.swarm_peers import eventually, in_order_of_id, introduce, running


async def test_two_peers_connect_and_exchange_messages_in_order() -> None:
    low, high = in_order_of_id(2)
    async with running(low) as first, running(high) as second:
        introduce(first, second)
        await eventually(lambda: first.sees(second) and second.sees(first))
        for number in range(100):
            assert first.network.send(second.peer_id, b"control %d" % number)
        assert second.network.send_bulk(first.peer_id, bytes(1_000_000))
        await eventually(lambda: len(second.messages) == 100 and len(first.bulk) == 1)
        assert second.messages == [(first.peer_id, b"control %d" % n) for n in range(100)]
        assert first.bulk == [(second.peer_id, bytes(1_000_000))]
        assert first.log == [f"up {second.peer_id}"]
        (status,) = first.network.links()
        assert status.kind == "direct"
        assert status.reason == "there is no better kind"
        assert status.address == str(second.network.listen_address)
        assert status.rtt_ms is not None
        assert status.bytes_received > 1_000_000
