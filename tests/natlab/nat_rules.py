"""A router's behaviour as an nftables ruleset.

Netfilter picks an outer port for each flow, which by itself is address-and-port-dependent mapping.
Endpoint-independent mapping is made of two dynamic maps: after the first flow of an inner endpoint
was translated, `learn` writes its outer port down; later flows take it from there (`outward`), and
packets from outside find the way back (`inward`). Filtering beyond conntrack's own verdict, which
is address-and-port-dependent, comes from what `learn` saw leaving (`contacted`, `sent`).

Interfaces: `wan*` leads to the outside, all others to the inside.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from ipaddress import IPv4Address

from tests.natlab.nat_behaviour import (
    Filtering,
    Mapping,
    NatBehaviour,
    NatOptions,
    Outbound,
)

_PROTOCOLS = ("tcp", "udp")
_MAP_SIZE = 65536
# A mapping takes the next of so many shuffled ports: unlike a random choice for each, no two inner
# endpoints can be given the same one before they are used up.
_INDEPENDENT_PORTS = 2048
_SEQUENTIAL_PORTS = 8192
_FIRST_PORT, _LAST_PORT = 20000, 59999

# So much of a TCP connection, and a second's worth more, passes a router that slows TCP down before
# it is held to the rate: a superpacket, since what is larger than all that never passes.
TCP_BURST_BYTES = 64 * 1024

# Packets stop here while a router restarts: earlier than conntrack, so that none is remembered.
HALT = """
table inet halt {
  chain in { type filter hook prerouting priority -500; policy drop; }
  chain out { type filter hook output priority -500; policy drop; }
}
"""
RESUME = "delete table inet halt\n"


@dataclass(frozen=True, slots=True)
class RouterRules:
    """Builds the ruleset of one router; `public` is the address that it translates to, if any."""

    behaviour: NatBehaviour
    options: NatOptions
    public: IPv4Address | None

    def __post_init__(self) -> None:
        if self.options.hairpin and self.behaviour.mapping is not Mapping.ENDPOINT_INDEPENDENT:
            raise ValueError(
                f"hairpinning needs endpoint-independent mapping, got {self.behaviour.mapping.name}"
            )
        if (self.public is None) != (self.behaviour.mapping is Mapping.NONE):
            raise ValueError("a public address goes with translation, and only with it")

    def ruleset(self, ports: random.Random) -> str:
        """The text for `nft -f`, replacing what was loaded before; `ports` draws the outer ports.

        Loading it empties the maps and draws ports anew, as a restart does; conntrack is apart.
        """
        translation = [] if self.public is None else self._translation(ports)
        lines = [
            "table ip router { }",
            "delete table ip router",
            "table ip6 router { }",
            "delete table ip6 router",
            "table ip router {",
            *translation,
            *self._filter("ip"),
            "}",
            "table ip6 router {",
            *self._filter("ip6"),
            "}",
        ]
        return "\n".join(lines) + "\n"

    # -- translation --------------------------------------------------------------------------

    def _translation(self, ports: random.Random) -> list[str]:
        independent = self.behaviour.mapping is Mapping.ENDPOINT_INDEPENDENT
        return [
            *(self._memory() if independent else []),
            *(self._translate_in() if independent else []),
            "chain choose_source {",
            *self._choose_source(ports),
            "}",
            "chain translate_out {",
            "  type nat hook postrouting priority srcnat; policy accept;",
            '  oifname "wan*" goto choose_source',
            *([f"  {self._hairpinned} goto choose_source"] if self.options.hairpin else []),
            "}",
            *(self._learn() if independent else []),
            *(self._filter_hairpinned() if self.options.hairpin else []),
        ]

    @property
    def _hairpinned(self) -> str:
        """Matches, after translation, what inner hosts sent to an outer endpoint of this router."""
        return f'oifname != "wan*" ct status dnat ct original ip daddr {self.public}'

    def _memory(self) -> list[str]:
        lines = []
        for protocol in _PROTOCOLS:
            lifetime = ""
            if protocol == "udp" and self.options.udp_timeout_s is not None:
                lifetime = f"timeout {self.options.udp_timeout_s}s;"
            tail = f"flags dynamic; size {_MAP_SIZE}; {lifetime}"
            endpoint = "ipv4_addr . inet_service"
            lines += [
                f"map {protocol}_outward {{ type {endpoint} : {endpoint}; {tail} }}",
                f"map {protocol}_inward {{ type inet_service : {endpoint}; {tail} }}",
                f"set {protocol}_contacted {{ type {endpoint} . ipv4_addr; {tail} }}",
                f"set {protocol}_sent {{ type {endpoint} . {endpoint}; {tail} }}",
            ]
        return lines

    def _translate_in(self) -> list[str]:
        inward = self.behaviour.filtering in (
            Filtering.ENDPOINT_INDEPENDENT,
            Filtering.ADDRESS_DEPENDENT,
        )
        sides = (['iifname "wan*"'] if inward else []) + (
            ['iifname != "wan*"'] if self.options.hairpin else []
        )
        return [
            "chain translate_in {",
            "  type nat hook prerouting priority dstnat; policy accept;",
            *(
                f"  {side} ip daddr {self.public} "
                f"dnat ip to {protocol} dport map @{protocol}_inward"
                for side in sides
                for protocol in _PROTOCOLS
            ),
            "}",
        ]

    def _choose_source(self, ports: random.Random) -> list[str]:
        both = "meta l4proto { tcp, udp }"
        anything = f"  snat to {self.public}"  # ports stay where they are free; ICMP has none
        match self.behaviour.mapping:
            case Mapping.ENDPOINT_INDEPENDENT:
                shuffled = ports.sample(range(_FIRST_PORT, _LAST_PORT + 1), _INDEPENDENT_PORTS)
                return [
                    *(
                        f"  snat ip to ip saddr . {protocol} sport map @{protocol}_outward"
                        for protocol in _PROTOCOLS
                    ),
                    f"  {both} snat to {self.public} : {_next_of(shuffled)}",
                    anything,
                ]
            case Mapping.RANDOM:
                return [f"  {both} snat to {self.public}:1024-65535 fully-random", anything]
            case Mapping.SEQUENTIAL:
                first = ports.randrange(_FIRST_PORT, _LAST_PORT - _SEQUENTIAL_PORTS)
                ascending = list(range(first, first + _SEQUENTIAL_PORTS))
                return [f"  {both} snat to {self.public} : {_next_of(ascending)}", anything]
            case Mapping.PORT_PRESERVING:
                return [anything]
            case Mapping.NONE:
                raise ValueError("no source to choose without translation")

    def _learn(self) -> list[str]:
        lines = [
            "chain learn_flow {",
            *(line for protocol in _PROTOCOLS for line in self._learn_flow(protocol)),
            "}",
            "chain learn {",
            "  type filter hook postrouting priority srcnat + 10; policy accept;",
            '  oifname "wan*" ct direction original goto learn_flow',
        ]
        if self.options.hairpin:
            lines.append(f"  {self._hairpinned} ct direction original goto learn_flow")
        if self.options.udp_timeout_s is not None:
            # An answer on a flow that began outside keeps the mapping alive too.
            inner = "ct reply ip saddr . ct reply proto-src"
            lines += [
                '  oifname "wan*" meta l4proto udp ct status dnat '
                f"update @udp_outward {{ {inner} : ip saddr . udp sport }} "
                f"update @udp_inward {{ udp sport : {inner} }}",
            ]
        return [*lines, "}"]

    def _learn_flow(self, protocol: str) -> list[str]:
        # The original tuple still has the inner source; the packet already has the outer one.
        inner = "ct original ip saddr . ct original proto-src"
        learnt = [
            f"update @{protocol}_outward {{ {inner} : ip saddr . {protocol} sport }}",
            f"update @{protocol}_inward {{ {protocol} sport : {inner} }}",
        ]
        if self.behaviour.filtering is Filtering.ADDRESS_DEPENDENT:
            remote = "ct original ip daddr"
            learnt.append(f"update @{protocol}_contacted {{ {inner} . {remote} }}")
        if self.options.hairpin:
            remote = "ct original ip daddr . ct original proto-dst"
            learnt.append(f"update @{protocol}_sent {{ {inner} . {remote} }}")
        return [f"  meta l4proto {protocol} {update}" for update in learnt]

    # -- filtering ----------------------------------------------------------------------------

    def _filter(self, family: str) -> list[str]:
        return [
            *self._tcp_rates(family),
            "chain refuse {",
            *(
                ["  tcp flags & (syn | ack) == syn reject with tcp reset"]
                if self.options.reset_unsolicited
                else []
            ),
            "  drop",
            "}",
            "chain forward {",
            "  type filter hook forward priority filter; policy drop;",
            # Not translated, so it would carry a private address out.
            '  oifname "wan*" ct state invalid drop',
            *self._slow_down_tcp(family),
            "  ct state established,related accept",
            *self._filter_inbound(family),
            '  iifname "wan*" goto refuse',
            *(f'  oifname "wan*" {refused} drop' for refused in self._outbound_refused()),
            "  accept",
            "}",
            "chain input {",
            "  type filter hook input priority filter; policy drop;",
            '  iifname "lo" accept',
            "  ct state established,related accept",
            *(
                ["  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"]
                if family == "ip6"
                else []
            ),
            # Dropped, never rejected by the stack: conntrack must not remember a stray packet.
            '  iifname "wan*" goto refuse',
            *([f"  ip daddr {self.public} drop"] if family == "ip" and self.public else []),
            "  accept",
            "}",
        ]

    def _tcp_rates(self, family: str) -> list[str]:
        """The rates of all TCP connections, each direction by itself."""
        if self.options.tcp_bytes_s is None:
            return []
        address = "ipv4_addr" if family == "ip" else "ipv6_addr"
        flow = f"{address} . inet_service . {address} . inet_service"
        return [f"set tcp_rates {{ type {flow}; flags dynamic; size {_MAP_SIZE}; timeout 60s; }}"]

    def _slow_down_tcp(self, family: str) -> list[str]:
        if self.options.tcp_bytes_s is None:
            return []
        flow = f"{family} saddr . tcp sport . {family} daddr . tcp dport"
        limit = f"limit rate over {self.options.tcp_bytes_s} bytes/second"
        return [f"  update @tcp_rates {{ {flow} {limit} burst {TCP_BURST_BYTES} bytes }} drop"]

    def _filter_inbound(self, family: str) -> list[str]:
        """Rules accepting new flows from outside."""
        wan = '  iifname "wan*"'
        match self.behaviour.filtering:
            case Filtering.OPEN:
                return [f"{wan} accept"]
            # IPv6 is not translated: behind every kind but OPEN it is a stateful firewall.
            case Filtering.ENDPOINT_INDEPENDENT if family == "ip":
                return [f"{wan} ct status dnat accept"]
            case Filtering.ADDRESS_DEPENDENT if family == "ip":
                return [f"{wan} {rule}" for rule in _contacted()]
            case _:
                return []

    def _outbound_refused(self) -> list[str]:
        match self.behaviour.outbound:
            case Outbound.EVERYTHING:
                return []
            case Outbound.TCP:
                return ["meta l4proto != tcp"]
            case Outbound.WEB:
                return ["meta l4proto != tcp", "tcp dport != { 80, 443 }"]

    def _filter_hairpinned(self) -> list[str]:
        """The filter for hairpinned packets stands after translation: it judges the outer source.

        Before it, `learn` noted that the sender wanted to talk, as a packet through the WAN would
        have made it; only so can two hosts punch towards each other.
        """
        match self.behaviour.filtering:
            case Filtering.ENDPOINT_INDEPENDENT:
                return []
            case Filtering.ADDRESS_DEPENDENT:
                accepted = list(_contacted())
            case _:
                accepted = [
                    f"ip daddr . {protocol} dport . ip saddr . {protocol} sport "
                    f"@{protocol}_sent accept"
                    for protocol in _PROTOCOLS
                ]
        return [
            "chain hairpin_filter {",
            *(f"  {rule}" for rule in accepted),
            "  drop",
            "}",
            "chain hairpin {",
            "  type filter hook postrouting priority srcnat + 20; policy accept;",
            f"  ct state new {self._hairpinned} goto hairpin_filter",
            "}",
        ]


def _contacted() -> list[str]:
    return [
        f"ct status dnat ip daddr . {protocol} dport . ip saddr @{protocol}_contacted accept"
        for protocol in _PROTOCOLS
    ]


def _next_of(ports: list[int]) -> str:
    """An expression that yields one port after the other (numgen alone comes out byte-swapped)."""
    numbered = ", ".join(f"{index} : {port}" for index, port in enumerate(ports))
    return f"numgen inc mod {len(ports)} map {{ {numbered} }}"
