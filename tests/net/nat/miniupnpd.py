"""A home router with miniupnpd, as many are: PCP, NAT-PMP and UPnP on a real nftables NAT."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from tests.natlab.lab import NatKind, NatLab, Site

PUBLIC_HOST = "11.22.33.44"
"""It maps nothing for addresses that are not public by their looks, as the laboratory's are not."""

RULES = """
flush ruleset
table inet filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "lan0" accept
        jump miniupnpd
    }
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        jump postrouting_miniupnpd
        oifname "wan0" masquerade
    }
    chain miniupnpd {}
    chain prerouting_miniupnpd {}
    chain postrouting_miniupnpd {}
}
"""

CONFIG = f"""
ext_ifname=wan0
ext_ip={PUBLIC_HOST}
listening_ip=lan0
secure_mode=yes
ipv6_disable=yes
min_lifetime=1
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


class UpnpRouter:
    """The router of a site, which has one host."""

    def __init__(self, lab: NatLab, site: Site, directory: Path) -> None:
        self.lab = lab
        self.site = site
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        namespace = site.router.namespace
        namespace.nft(RULES)
        namespace.ip(f"addr add {PUBLIC_HOST}/32 dev wan0")
        site.cable.add_prefixes(IPv4Network(PUBLIC_HOST))

    @property
    def gateway(self) -> str:
        """Its address at home."""
        return self.site.host.address.rpartition(".")[0] + ".1"

    @property
    def mappings(self) -> str:
        """The rules of the mappings that there are now."""
        argv = ["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"]
        return self.site.router.namespace.call(
            lambda: subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        )

    def start(self, *, pmp: bool = True, upnp: bool = True) -> None:
        """Start miniupnpd, with these protocols."""
        config = self._directory / "miniupnpd.conf"
        yes_no = {True: "yes", False: "no"}
        config.write_text(CONFIG + f"enable_natpmp={yes_no[pmp]}\nenable_upnp={yes_no[upnp]}\n")
        log = self._directory / "miniupnpd.log"
        argv = ["miniupnpd", "-d", "-f", str(config), "-P", str(self._directory / "pid")]
        with log.open("wb") as output:
            self._process = self.site.router.namespace.call(
                lambda: subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)
            )
        # It says so last, after it listens for UPnP.
        while "Listening for NAT-PMP" not in (said := log.read_text()):
            if not pmp and "HTTP listening" in said:
                break
            assert self._process.poll() is None, said

    def stop(self) -> None:
        """Stop it as a power cut does: a gentle signal it can miss. Its mappings stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(90)
            self._process = None

    def restart_forgetful(self, **protocols: bool) -> None:
        """Let it come back knowing no mapping."""
        self.stop()
        self.site.router.namespace.nft(RULES)
        self.start(**protocols)


@contextmanager
def upnp_router(lab: NatLab, name: str, directory: Path) -> Iterator[UpnpRouter]:
    """A site with such a router, not started yet."""
    router = UpnpRouter(lab, lab.add_site(name, NatKind.MASQUERADE), directory)
    try:
        yield router
    finally:
        router.stop()
