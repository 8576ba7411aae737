"""How long an ICE flow lasts whose other side answers late, or not at all; in virtual time."""

import asyncio
from random import Random

from aioice import stun
from aioice.candidate import Candidate
from aioice.ice import CandidatePair, StunProtocol

from daemon.net.paths.ice.connection import CONSENT_INTERVAL_S, CONSENT_S, FlowUser, IceConnection
from daemon.net.paths.ice.path import IcePath
from daemon.net.paths.path import Path, PathOwner
from daemon.net.refusals import Refusals
from protocol.identity import Identity
from protocol.peers.hello import Role
from protocol.uri import HostPort
from tests.rounds.virtual_time import run_virtual
from transport.clock import Clock

HOUR_S = 3600.0
PASSWORD = "the other side's"
ENDPOINT = ("203.0.113.2", 5000)


class Wire(asyncio.DatagramTransport):
    """Carries datagrams to another connection at once."""

    def __init__(self, line: "Line", to: IceConnection) -> None:
        super().__init__()
        self._line = line
        self._to = to

    def sendto(self, data: bytes | bytearray | memoryview, addr: object = None) -> None:
        self._to.data_received(bytes(data), 1)

    def close(self) -> None:
        self._line.connection_lost(None)


class Line(StunProtocol):
    """A socket whose line delays each check and its answer, or loses them."""

    def __init__(self, connection: IceConnection, answer_after_s: float | None) -> None:
        """``answer_after_s``: None: there is no answer."""
        super().__init__(connection)
        self.answer_after_s = answer_after_s
        self.error: tuple[int, str] | None = None
        self.sent_at: list[float] = []
        self.local_candidate = candidate("192.168.1.10")

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        self.sent_at.append(loop.time())
        if self.answer_after_s is None:
            return
        answer = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.RESPONSE if self.error is None else stun.Class.ERROR,
            transaction_id=message.transaction_id,
        )
        if self.error is not None:
            answer.attributes["ERROR-CODE"] = self.error
        answer.add_message_integrity(PASSWORD.encode())
        loop.call_later(self.answer_after_s, self.datagram_received, bytes(answer), addr)


class Flow(FlowUser):
    """Notes its end."""

    def __init__(self) -> None:
        self.ended_after_s: float | None = None
        self._began_at = asyncio.get_running_loop().time()

    def datagram_received(self, datagram: bytes) -> None:
        """None comes here."""
        raise NotImplementedError

    def flow_ended(self, reason: str) -> None:
        """Notes when."""
        assert reason == "its endpoint answered no check for 30 s"
        self.ended_after_s = asyncio.get_running_loop().time() - self._began_at


def candidate(host: str) -> Candidate:
    return Candidate("1", 1, "udp", 1, host, ENDPOINT[1], "host")


class Connected:
    """A connection whose flow is found, to an endpoint that answers after a while."""

    def __init__(self, answer_after_s: float | None) -> None:
        self.connection = IceConnection(
            is_controlling=True, stun_server=None, refusals=Refusals(Clock()), random=Random(1)
        )
        self.connection.remote_username, self.connection.remote_password = "them", PASSWORD
        self.line = Line(self.connection, answer_after_s)
        self.connection._nominated[1] = CandidatePair(self.line, candidate(ENDPOINT[0]))
        self.flow = Flow()
        self.connection.start(self.flow)

    async def live(self, longest_s: float) -> None:
        """Until the flow ends, or for so long."""
        try:
            async with asyncio.timeout(longest_s):
                await self.connection.query_consent()
        except TimeoutError:
            pass


def test_answers_that_take_seconds_on_a_slow_line_keep_a_flow() -> None:
    async def scenario() -> None:
        for answer_after_s in (0.01, 0.6, 3.0, 20.0):
            flow = Connected(answer_after_s)
            await flow.live(HOUR_S)
            assert flow.flow.ended_after_s is None, f"answers after {answer_after_s} s"
            # No more than one check in 5 s, and where there is time for it those that repeat it.
            assert len(flow.line.sent_at) < HOUR_S / CONSENT_INTERVAL_S * 3

    run_virtual(scenario())


def test_flow_ends_when_its_endpoint_has_not_answered_for_thirty_seconds() -> None:
    async def scenario() -> None:
        silent = Connected(None)
        await silent.live(HOUR_S)
        assert silent.flow.ended_after_s is not None
        assert abs(silent.flow.ended_after_s - CONSENT_S) < 0.01
        sent = len(silent.line.sent_at)
        assert 5 <= sent <= 7
        silent.connection.send_datagram(b"dropped")

        fell_silent = Connected(0.1)
        asyncio.get_running_loop().call_later(
            HOUR_S, lambda: setattr(fell_silent.line, "answer_after_s", None)
        )
        await fell_silent.live(2 * HOUR_S)
        ended_after_s = fell_silent.flow.ended_after_s
        assert ended_after_s is not None
        assert HOUR_S + CONSENT_S - 2 * CONSENT_INTERVAL_S < ended_after_s <= HOUR_S + CONSENT_S

    run_virtual(scenario())


def test_answer_that_is_an_error_is_no_consent() -> None:
    async def scenario() -> None:
        refusing = Connected(0.1)
        refusing.line.error = (500, "Server Error")
        await refusing.live(HOUR_S)
        assert refusing.flow.ended_after_s is not None
        assert abs(refusing.flow.ended_after_s - CONSENT_S) < 0.01

    run_virtual(scenario())


class Owner(PathOwner):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.opened: list[Path] = []
        self.lost: list[str] = []
        self.received = 0

    def path_opened(self, path: Path) -> None:
        self.opened.append(path)

    def path_received(self, path: Path, frame: bytes | memoryview) -> None:
        self.received += 1

    def path_writable(self, path: Path) -> None:
        pass

    def path_lost(self, path: Path, reason: str) -> None:
        self.lost.append(reason)


def test_owner_of_a_path_is_told_that_the_endpoint_answers_no_more() -> None:
    identities = {
        Role.INITIATOR: Identity(bytes([1]) * 32),
        Role.RESPONDER: Identity(bytes([2]) * 32),
    }

    async def scenario() -> None:
        sides = {role: Connected(0.1) for role in Role}
        owners = {role: Owner() for role in Role}
        paths = []
        for role, side in sides.items():
            side.line.connection_made(Wire(side.line, sides[role.other].connection))
            side.connection._protocols.append(side.line)
            path = IcePath(
                side.connection,
                HostPort(*ENDPOINT),
                identity=identities[role],
                role=role,
                peer_id=identities[role.other].peer_id,
                binding=b"binding",
                owner=owners[role],
            )
            paths.append(path)
        owner, side = owners[Role.INITIATOR], sides[Role.INITIATOR]
        side.line.answer_after_s = None
        async with asyncio.TaskGroup() as tasks:
            for path in paths:
                tasks.create_task(path.run())
            tasks.create_task(side.connection.query_consent())
            while not owner.lost:
                for path in paths:
                    path.send(b"still there")
                await asyncio.sleep(1)
        assert owner.received > 20, "it was in use until then"
        assert owner.lost == ["its endpoint answered no check for 30 s"]

    run_virtual(scenario())
