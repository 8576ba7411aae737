"""How much of the daemon's time the messages of one peer may take."""

from pathlib import Path

from daemon.net.refusals import Refusals
from daemon.rounds.effort import AT_ONCE_S, SHARE, Effort
from daemon.rounds.envelopes import Envelopes
from daemon.rounds.rounds import Rounds
from protocol.codec import encode
from protocol.identity import Identity
from protocol.peers.peer_messages import CertificateRequest
from protocol.statements.swarm import RoundSettings
from tests.rounds.simulated_swarm import ToyTrainer, make_setup, make_swarm
from tests.rounds.updates.test_update_offers import Mail
from transport.clock import Clock

FLOOD, OTHER = Identity.generate().peer_id, Identity.generate().peer_id


class Machine(Clock):
    """One on which each look at the processor's time takes a second of it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.taken_s = 0.0
        self.step_s = 1.0

    def monotonic(self) -> float:
        return self.now

    def processor_s(self) -> float:
        self.taken_s += self.step_s
        return self.taken_s


def test_who_takes_too_much_waits_and_nobody_else_does() -> None:
    machine = Machine()
    effort = Effort(machine)
    acted = 0
    for _ in range(100):
        if effort.has_left(FLOOD):
            with effort.spent_on(FLOOD):
                acted += 1
    assert acted == AT_ONCE_S
    assert effort.has_left(OTHER)
    machine.now += 1 / SHARE
    assert effort.has_left(FLOOD)
    with effort.spent_on(OTHER):
        effort.forget_old()  # Another session opens meanwhile.
    machine.now += AT_ONCE_S / SHARE
    effort.forget_old()
    assert not effort._left


async def test_messages_that_take_too_much_time_are_passed_over_and_counted(tmp_path: Path) -> None:
    machine, mail = Machine(), Mail()
    refusals = Refusals(machine)
    trainer = ToyTrainer(tmp_path)
    swarm = make_swarm(RoundSettings())
    setup = make_setup(
        swarm,
        Identity.generate(),
        tmp_path,
        trainer,
        mail,
        Envelopes(swarm.swarm_id, machine),
        clock=machine,
        refusals=refusals,
    )
    async with Rounds(setup, mail) as rounds:
        message = encode(CertificateRequest(round=1, base=bytes(32)))
        for _ in range(30):
            rounds.inbox.receive(FLOOD, message)
        assert refusals.by_code() == {"effort": 30 - AT_ONCE_S}
        rounds.inbox.receive(OTHER, message)
        assert refusals.of(OTHER) == 0
