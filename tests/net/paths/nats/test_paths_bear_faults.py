"""Networks that fail while paths are in use cost no message, and soon all goes on.

All faults are injected in one laboratory at the same time, each into a star of its own: numbered
messages flow from its middle over each kind of path, without end.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from daemon.net.path_kind import PathKind
from tests.natlab.lab import NatKind, Site
from tests.natlab.requirements import natlab_marks
from tests.net.paths.nats.star import Star
from tests.net.paths.path_lab import PathLab, path_lab

pytestmark = [*natlab_marks, pytest.mark.slow, pytest.mark.timeout(400)]

PORT = 5555
BEARABLE_S = 60.0
"""So long after a cut has ended, or another fault has come, all goes on: twice what p2pd promises,
for a machine that has much else to do; and half of what it takes to give a session up."""
CUT_S = 20.0
NEW_HOST = ".99"
"""How the address ends that a machine gets."""
LINE_RATE = "500kbit"
"""Of the others, so that faults fall into the middle of messages, and no path hampers another."""
UDP_TIMEOUT_S, TCP_TIMEOUT_S = 5, 8
"""TCP's is longer than the rendezvous connection's heartbeats are apart."""
IDLE_S = 25.0
KINDS = {
    PathKind.PUNCHED: NatKind.PORT_RESTRICTED,
    PathKind.ICE: NatKind.PORT_RESTRICTED,
    PathKind.RELAY: NatKind.UDP_BLOCKED,
}
FOUND_BY_PEERS = (PathKind.PUNCHED, PathKind.ICE)
FAULTS = ("reboots", "addresses", "cut")


@dataclass
class Ordeal:
    """What was seen, by fault and kind of path."""

    whole: dict[tuple[str, PathKind], bool] = field(default_factory=dict)
    silence_s: dict[tuple[str, PathKind], float] = field(default_factory=dict)
    statuses: dict[tuple[str, PathKind], dict[str, Any]] = field(default_factory=dict)
    addresses: dict[str, list[dict[PathKind, str]]] = field(default_factory=dict)
    """Where the peer in the middle was reached: at first, and after each thing that happened."""
    own_addresses: dict[str, list[str]] = field(default_factory=dict)
    """Where it says in the end that it can be dialled."""
    rendezvous_killed_at: float = 0.0


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeal]:
    with path_lab(tmp_path_factory.mktemp("servers")) as lab:
        lab.serve("rendezvous", lab.lab.add_public_host("server"), PORT)
        lab.serve("relay", lab.lab.add_public_host("relay"), PORT)
        yield undergo(lab)


def undergo(lab: PathLab) -> Ordeal:
    ordeal = Ordeal()
    stars = {name: Star(lab, name, 10 * (1 + at), KINDS) for at, name in enumerate(FAULTS)}
    idle = Star(
        lab,
        "idle",
        10 * (1 + len(FAULTS)),
        dict.fromkeys(FOUND_BY_PEERS, NatKind.PORT_RESTRICTED),
        udp_timeout_s=UDP_TIMEOUT_S,
        tcp_timeout_s=TCP_TIMEOUT_S,
    )
    everyone = {**stars, "idle": idle}
    scripts = {"reboots": reboot, "addresses": change_addresses, "cut": cut, "idle": stay_idle}
    lines = [leaf.site for star in stars.values() for leaf in star.leaves.values()]
    for line in lines:
        lab.lab.set_rate(line, LINE_RATE)

    def run(name: str) -> None:
        star = everyone[name]
        star.join()
        ordeal.addresses[name] = [star.addresses()]
        for _ in scripts[name](star):
            ordeal.addresses[name].append(star.addresses())

    with ThreadPoolExecutor(len(everyone)) as threads:
        list(threads.map(run, everyone))
        ordeal.rendezvous_killed_at = time.monotonic()
        lab.kill("rendezvous")
        list(threads.map(Star.wait_resumed, stars.values()))
    for star in stars.values():
        star.end_bulk()
    # So that what is on its way soon comes; before, it would be a flood.
    for line in lines:
        lab.lab.set_rate(line, None)
    for name, star in stars.items():
        for kind, is_whole in star.wait_whole().items():
            ordeal.whole[name, kind] = is_whole
            ordeal.silence_s[name, kind] = star.longest_silence_s(kind)
    for name, star in everyone.items():
        ordeal.own_addresses[name] = star.node.ask("status")["addresses"]
        for kind, status in star.statuses().items():
            ordeal.statuses[name, kind] = status
    return ordeal


# Each goes on to the next step when all goes on after the one before.


def reboot(star: Star) -> Iterator[None]:
    star.send_bulk()
    star.wait_resumed()
    star.site.reboot_nat()
    star.wait_resumed()
    yield
    for site in sites(star):
        site.reboot_nat()
    star.wait_resumed()
    yield


def change_addresses(star: Star) -> Iterator[None]:
    star.send_bulk()
    star.wait_resumed()
    star.site.change_address()
    star.wait_resumed()
    yield
    for site in sites(star):
        site.change_address()
    star.wait_resumed()
    yield


def cut(star: Star) -> Iterator[None]:
    star.send_bulk()
    star.wait_resumed()
    began_at = time.monotonic()
    star.site.cut()
    time.sleep(CUT_S)
    star.site.mend()
    star.outages.append((began_at, time.monotonic()))
    star.wait_resumed()
    yield
    give_address(star, instead=True)
    star.wait_resumed()
    yield


def stay_idle(star: Star) -> Iterator[None]:
    time.sleep(IDLE_S)
    for leaf in star.leaves.values():
        assert star.node.ask("send", leaf.number, "still-there")["sent"]
    for leaf in star.leaves.values():
        assert leaf.node.ask("hear", "still-there", 90)["found"]
    yield
    before = star.addresses()[PathKind.ICE]
    give_address(star, instead=False)
    leaf = star.leaves[PathKind.ICE]
    deadline = time.monotonic() + BEARABLE_S
    while star.addresses()[PathKind.ICE] == before and time.monotonic() < deadline:
        time.sleep(0.1)
    yield


def sites(star: Star) -> list[Site]:
    return [star.site, *(leaf.site for leaf in star.leaves.values())]


def give_address(star: Star, *, instead: bool) -> None:
    """The machine in the middle gets another address in its network, beside the old or instead."""
    host = star.site.host
    network = host.address.rpartition(".")[0]
    commands = [f"addr add {network}{NEW_HOST}/24 dev eth0"]
    if instead:
        commands.insert(0, f"addr del {host.address}/24 dev eth0")
        commands.append(f"route replace default via {network}.1 dev eth0 onlink")
    host.namespace.ip(*commands)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_message_comes_once_in_order_and_whole_and_all_goes_on_soon(
    ordeal: Ordeal, fault: str, kind: PathKind
) -> None:
    status = ordeal.statuses[fault, kind]
    assert status["wrong"] == []
    assert ordeal.whole[fault, kind], status
    assert ordeal.silence_s[fault, kind] < BEARABLE_S
    print(f"{fault}, {kind}: at most {ordeal.silence_s[fault, kind]:.1f} s without a message")


@pytest.mark.parametrize("kind", FOUND_BY_PEERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_path_is_made_anew_where_the_old_one_cannot_stand(
    ordeal: Ordeal, fault: str, kind: PathKind
) -> None:
    *_, before, after = (addresses[kind] for addresses in ordeal.addresses[fault])
    assert before != after
    if fault != "cut":  # after which a path may stand again
        assert ordeal.addresses[fault][0][kind] != before


def test_machine_that_got_another_address_says_so(ordeal: Ordeal) -> None:
    assert any(f"{NEW_HOST}:" in address for address in ordeal.own_addresses["cut"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_nobody_is_missed_when_the_rendezvous_is_killed(
    ordeal: Ordeal, fault: str, kind: PathKind
) -> None:
    log = ordeal.statuses[fault, kind]["log"]
    assert [text for at, text in log if at >= ordeal.rendezvous_killed_at] == []


@pytest.mark.parametrize("kind", FOUND_BY_PEERS)
def test_path_outlives_silence_for_longer_than_nats_remember(
    ordeal: Ordeal, kind: PathKind
) -> None:
    first, second, _ = (addresses[kind] for addresses in ordeal.addresses["idle"])
    assert first == second
    assert [text.split()[0] for _, text in ordeal.statuses["idle", kind]["log"]] == ["up"]


def test_ice_path_that_stands_is_made_anew_in_another_network(ordeal: Ordeal) -> None:
    _, before, after = (addresses[PathKind.ICE] for addresses in ordeal.addresses["idle"])
    assert before != after
