"""A router between the outside and its inner side: translates, filters, restarts, moves."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

from tests.natlab import nat_rules
from tests.natlab.cable import Cable, CableEnd
from tests.natlab.namespaces import Namespace
from tests.natlab.nat_behaviour import NatBehaviour, NatOptions

_STEM = "wan"
_SYSCTLS = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/default/accept_dad": 0,
    # What two hosts of one home say to each other is no business of the router's rules.
    "bridge/bridge-nf-call-iptables": 0,
    "bridge/bridge-nf-call-ip6tables": 0,
}


def enable_forwarding(namespace: Namespace) -> None:
    namespace.sysctl(_SYSCTLS)


class Upstream:
    """What cables can hang on: the internet, or a carrier's inner side."""

    def __init__(self, namespace: Namespace, gateway: IPv4Address) -> None:
        self.namespace = namespace
        self.gateway = gateway
        self._ports = 0

    def plug(self, lower: CableEnd, *, ipv6: bool) -> Cable:
        """A connected cable from a free port down to `lower`."""
        self._ports += 1
        upper = CableEnd(self.namespace, f"port{self._ports}x")
        cable = Cable(lower, upper, self.gateway, ipv6=ipv6)
        cable.connect()
        return cable


class Router:
    """A running router. Behind a carrier, its public address is one of the carrier's network."""

    def __init__(
        self,
        namespace: Namespace,
        behaviour: NatBehaviour,
        options: NatOptions,
        upstream: Upstream,
        public: IPv4Address | None,
        ports: random.Random,
    ) -> None:
        self.namespace = namespace
        self.public = public
        self._behaviour = behaviour
        self._options = options
        self._ports = ports
        # Wrong options are refused before anything is built.
        rules = self._ruleset()
        enable_forwarding(namespace)
        if options.udp_timeout_s is not None:
            namespace.sysctl(
                {
                    "netfilter/nf_conntrack_udp_timeout": options.udp_timeout_s,
                    "netfilter/nf_conntrack_udp_timeout_stream": options.udp_timeout_s,
                }
            )
        if options.tcp_timeout_s is not None:
            namespace.sysctl(
                {
                    "netfilter/nf_conntrack_tcp_timeout_established": options.tcp_timeout_s,
                    # Else a forgotten connection is taken up again in the middle.
                    "netfilter/nf_conntrack_tcp_loose": 0,
                }
            )
        self._outside = CableEnd(namespace, _STEM)
        self.cable = upstream.plug(self._outside, ipv6=True)
        if public is not None:
            namespace.ip(f"addr add {public}/32 dev {self._outside.wire}")
            self.cable.add_prefixes(IPv4Network(public))
        else:
            # It answers for its hosts' addresses, at once (by default after up to 0.8 s).
            device = self._outside.wire
            namespace.sysctl(
                {f"ipv4/conf/{device}/proxy_arp": 1, f"ipv4/neigh/{device}/proxy_delay": 0}
            )
        namespace.nft(rules)

    def reboot(self) -> None:
        """Forgets all mappings, permissions and connections; no packet passes meanwhile.

        Outer ports are drawn anew. The restart takes no time: for a longer one, cut the cable.
        """
        self.namespace.nft(nat_rules.HALT)
        self.namespace.flush_conntrack()
        self.namespace.nft(self._ruleset() + nat_rules.RESUME)

    def change_address(self, public: IPv4Address) -> None:
        """The provider gives another public address; what the router knew is void."""
        if self.public is None:
            raise ValueError("a router that does not translate has no address to change")
        old, self.public = self.public, public
        self.namespace.nft(nat_rules.HALT)
        self.namespace.ip(
            f"addr add {public}/32 dev {self._outside.wire}",
            f"addr del {old}/32 dev {self._outside.wire}",
        )
        self.cable.remove_prefix(IPv4Network(old))
        self.cable.add_prefixes(IPv4Network(public))
        self.namespace.flush_conntrack()
        self.namespace.nft(self._ruleset() + nat_rules.RESUME)

    def _ruleset(self) -> str:
        rules = nat_rules.RouterRules(self._behaviour, self._options, self.public)
        return rules.ruleset(self._ports)
