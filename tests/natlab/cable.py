"""The line between a node and what it hangs on: its routes, delay, loss, rate and cuts.

A cable is a veth pair; while it has a delay, a delay line stands beside it and the routes of both
ends point there. Devices are named by a stem: `wan0` and `wan1` for the stem `wan`. Loss and cuts
are applied where packets arrive, before conntrack; a rate where they leave.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from tests.natlab.delay_line import DelayLine
from tests.natlab.namespaces import Namespace, run_tool

_UPPER_V6 = "fe80::1"
_LOWER_V6 = "fe80::2"
_LOSS_GRAIN = 1_000_000
# How many segments a packet may hold: with one, software cuts superpackets before they leave.
_ALL_SEGMENTS = 65535
_QUEUE_S = 0.1
_LEAST_QUEUE_BYTES = 32 * 1500
"""No modem has room for fewer packets."""
_BURST_S = 0.004
_MIN_BURST_BYTES = 16_000
_RATE = re.compile(r"(\d+)(k|m|g)?bit")
_MULTIPLES = {None: 1, "k": 10**3, "m": 10**6, "g": 10**9}


@dataclass(frozen=True, slots=True)
class CableEnd:
    """One end: the namespace, and the stem of its devices' names."""

    namespace: Namespace
    stem: str

    @property
    def wire(self) -> str:
        return f"{self.stem}0"

    @property
    def delayed(self) -> str:
        return f"{self.stem}1"


class Cable:
    """From `lower` (a router's outside, a public host) to `upper` (the internet, a carrier)."""

    def __init__(
        self, lower: CableEnd, upper: CableEnd, gateway: IPv4Address, *, ipv6: bool
    ) -> None:
        self._lower = lower
        self._upper = upper
        self._gateway = gateway
        self._ipv6 = ipv6
        self._prefixes: list[IPv4Network | IPv6Network] = []
        self._delay_line: DelayLine | None = None
        self._delay_s = 0.0
        self._loss = 0.0
        self._bits_per_s: int | None = None
        self._shaped: set[tuple[CableEnd, str]] = set()
        self._is_cut = False

    def connect(self) -> None:
        """Plugs the cable in; the lower end's default routes lead up it."""
        lower, upper = self._lower, self._upper
        run_tool(
            ["ip", "-batch", "-"],
            f"link add {lower.wire} netns {lower.namespace.name} type veth "
            f"peer name {upper.wire} netns {upper.namespace.name}",
        )
        upper.namespace.ip(
            f"addr add {self._gateway}/32 dev {upper.wire}",
            f"link set {upper.wire} up",
            f"addr add {_UPPER_V6}/64 dev {upper.wire} nodad",
        )
        lower.namespace.ip(
            f"link set {lower.wire} up",
            *([f"addr add {_LOWER_V6}/64 dev {lower.wire} nodad"] if self._ipv6 else []),
        )
        self._point_routes()

    def close(self) -> None:
        """Ends the process of the delay line; the devices go with their namespaces."""
        if self._delay_line is not None:
            self._delay_line.close()
            self._delay_line = None

    # -- addresses ----------------------------------------------------------------------------

    def add_prefixes(self, *prefixes: IPv4Network | IPv6Network) -> None:
        """From now on the upper end sends packets for these addresses down this cable."""
        self._prefixes += prefixes
        self._point_routes()

    def remove_prefix(self, prefix: IPv4Network | IPv6Network) -> None:
        self._prefixes.remove(prefix)
        self._upper.namespace.ip(f"route del {prefix}")

    def _point_routes(self) -> None:
        lower, upper = self._lower, self._upper
        if self._delay_s > 0:
            up_v4 = up_v6 = f"dev {lower.delayed}"
            down_v4 = down_v6 = f"dev {upper.delayed}"
        else:
            up_v4 = f"via {self._gateway} dev {lower.wire} onlink"
            up_v6 = f"via {_UPPER_V6} dev {lower.wire}"
            down_v4 = f"dev {upper.wire}"
            down_v6 = f"via {_LOWER_V6} dev {upper.wire}"
        defaults = [f"route replace 0.0.0.0/0 {up_v4}"]
        if self._ipv6:
            defaults.append(f"route replace ::/0 {up_v6}")
        lower.namespace.ip(*defaults)
        upper.namespace.ip(
            *(
                f"route replace {prefix} {down_v4 if prefix.version == 4 else down_v6}"
                for prefix in self._prefixes
            )
        )

    # -- the line's quality -------------------------------------------------------------------

    def set_delay(self, delay_s: float) -> None:
        """One way, each way. A change to or from zero may reorder packets at its moment."""
        if delay_s > 0 and self._delay_line is None:
            lower, upper = self._lower, self._upper
            self._delay_line = DelayLine(
                lower.namespace, lower.delayed, upper.namespace, upper.delayed
            )
            self._shape_devices()
        if self._delay_line is not None:
            self._delay_line.set_delay(delay_s)
        self._delay_s = delay_s
        self._point_routes()

    def set_loss(self, loss: float) -> None:
        """Each packet is lost with this probability, each way."""
        if not 0 <= loss <= 1:
            raise ValueError(f"a loss between 0 and 1 expected, got {loss}")
        self._loss = loss
        self._shape_devices()
        self._filter_arrivals()

    def set_rate(self, rate: str | None) -> None:
        """At most so much each way (`20mbit`, `500kbit`), behind a queue of 100 ms, or of 32
        packets; None: any."""
        self._bits_per_s = None if rate is None else _parse_rate(rate)
        self._shape_devices()

    def cut(self) -> None:
        """Nothing passes from now on, and nobody is told."""
        self._is_cut = True
        self._filter_arrivals()

    def mend(self) -> None:
        self._is_cut = False
        self._filter_arrivals()

    def _filter_arrivals(self) -> None:
        if self._is_cut:
            verdict = "drop"
        elif self._loss > 0:
            verdict = f"numgen random mod {_LOSS_GRAIN} < {round(self._loss * _LOSS_GRAIN)} drop"
        else:
            verdict = "accept"
        for end in (self._lower, self._upper):
            table = f"inet cable_{end.stem}"
            end.namespace.nft(
                f"table {table} {{ }}\n"
                f"delete table {table}\n"
                f"table {table} {{ chain arrivals {{\n"
                # Before defragmentation, so that each packet on the line is one to lose.
                f"type filter hook prerouting priority -450; policy accept;\n"
                f'iifname {{ "{end.wire}", "{end.delayed}" }} {verdict}\n'
                f"}}\n}}\n"
            )

    def _shape_devices(self) -> None:
        # Loss and rate must meet the packets of a real line, not superpackets of 64 KiB.
        segmented = self._loss > 0 or self._bits_per_s is not None
        segments = 1 if segmented else _ALL_SEGMENTS
        for end in (self._lower, self._upper):
            devices = [end.wire] if self._delay_line is None else [end.wire, end.delayed]
            end.namespace.ip(*(f"link set {device} gso_max_segs {segments}" for device in devices))
            if self._bits_per_s is None:
                # What has no queue of ours keeps the kernel's, which is faster.
                shaped = [device for device in devices if (end, device) in self._shaped]
                end.namespace.tc(*(f"qdisc del dev {device} root" for device in shaped))
                self._shaped.difference_update((end, device) for device in shaped)
            else:
                bytes_per_s = self._bits_per_s / 8
                burst_bytes = max(_MIN_BURST_BYTES, round(bytes_per_s * _BURST_S))
                queue_bytes = max(_LEAST_QUEUE_BYTES, round(bytes_per_s * _QUEUE_S))
                limit_bytes = burst_bytes + queue_bytes
                shape = f"tbf rate {self._bits_per_s}bit burst {burst_bytes} limit {limit_bytes}"
                end.namespace.tc(
                    *(f"qdisc replace dev {device} root {shape}" for device in devices)
                )
                self._shaped.update((end, device) for device in devices)


def _parse_rate(rate: str) -> int:
    match = _RATE.fullmatch(rate)
    if match is None:
        raise ValueError(f"a rate such as 20mbit expected, got {rate!r}")
    return int(match[1]) * _MULTIPLES[match[2]]
