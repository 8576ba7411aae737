"""Notices that this machine came into another network: address, gateway or cable changed."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from types import TracebackType

from daemon.net.nat.network_state import NetworkState, read_network_state

log = logging.getLogger(__name__)

SETTLE_S = 0.5
"""A change comes as a volley of messages, which is over by then."""
POLL_S = 5.0
"""How often to look where the kernel tells nothing by itself."""

_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV4_ROUTE = 0x40
_RTMGRP_IPV6_IFADDR = 0x100
_RTMGRP_IPV6_ROUTE = 0x400
_GROUPS = (
    _RTMGRP_LINK
    | _RTMGRP_IPV4_IFADDR
    | _RTMGRP_IPV4_ROUTE
    | _RTMGRP_IPV6_IFADDR
    | _RTMGRP_IPV6_ROUTE
)
_NLMSG_HEADER = struct.Struct("=IHHII")
_RTM_DELADDR = 21
_RTM_DELROUTE = 25
_RT_SCOPE_UNIVERSE = 0
_RT_TABLE_MAIN = 254
_RECEIVE_BYTES = 65536
_BURST_MESSAGES = 64


class MachineNetwork:
    """This machine's network, as its kernel tells."""

    def read_state(self) -> NetworkState:
        """The addresses and gateways there are now."""
        return read_network_state()

    def open_netlink(self) -> socket.socket:
        """See :func:`open_route_netlink`."""
        return open_route_netlink()


class NetworkWatcher:
    """Calls ``on_change`` with the new state after each change. A context manager.

    It also calls it when an address or default route went and came back as it was: the network
    behind it may be another one. Listens to rtnetlink, and polls where there is none.

    Example (daemon/net/nat/behavior/monitor.py)::

        with NetworkWatcher(self._network_changed):
    """

    def __init__(
        self,
        on_change: Callable[[NetworkState], None],
        *,
        settle_s: float = SETTLE_S,
        poll_s: float = POLL_S,
        network: MachineNetwork | None = None,
    ) -> None:
        self._on_change = on_change
        self._settle_s = settle_s
        self._poll_s = poll_s
        self._network = network or MachineNetwork()
        self._netlink: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._something_went = False
        self.state = NetworkState()
        """The last that was read."""

    def __enter__(self) -> "NetworkWatcher":
        loop = asyncio.get_running_loop()
        try:
            self._netlink = self._network.open_netlink()
        except OSError as error:
            log.info("no rtnetlink (%s): looking at the network every %g s", error, self._poll_s)
            self._timer = loop.call_later(self._poll_s, self._poll)
        else:
            loop.add_reader(self._netlink, self._receive)
        self.state = self._network.read_state()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._netlink is not None:
            asyncio.get_running_loop().remove_reader(self._netlink)
            self._netlink.close()

    def _receive(self) -> None:
        assert self._netlink is not None
        for _ in range(_BURST_MESSAGES):
            try:
                data = self._netlink.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                # ENOBUFS: so much changed that the kernel dropped messages.
                self._something_went = True
                break
            self._something_went |= any(tells_of_loss(*message) for message in messages_in(data))
        # Not put off again by each message: where something changes all the time, it would be
        # looked at never.
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._settle_s, self._settled)

    def _settled(self) -> None:
        self._timer = None
        self._compare()

    def _poll(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._poll_s, self._poll)
        self._compare()

    def _compare(self) -> None:
        state = self._network.read_state()
        if state == self.state and not self._something_went:
            return
        self._something_went = False
        self.state = state
        log.info(
            "the network changed: addresses %s, gateways %s %s",
            " ".join(sorted(state.addresses)) or "none",
            state.gateway_ipv4 or "none",
            state.gateway_ipv6 or "none",
        )
        self._on_change(state)


def open_route_netlink() -> socket.socket:
    """A non-blocking socket that receives what changes in links, addresses and routes.

    Raises OSError where there is none.
    """
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        raise OSError("this system has no rtnetlink")
    netlink = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
    try:
        netlink.bind((0, _GROUPS))
    except OSError:
        netlink.close()
        raise
    return netlink


def messages_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each netlink message in a packet."""
    position = 0
    while position + _NLMSG_HEADER.size <= len(data):
        length, message_type, *_ = _NLMSG_HEADER.unpack_from(data, position)
        if length < _NLMSG_HEADER.size:
            return
        yield message_type, data[position + _NLMSG_HEADER.size : position + length]
        position += (length + 3) & ~3


def tells_of_loss(message_type: int, payload: bytes) -> bool:
    """Whether a usable address or a default route went.

    Other losses (link-local addresses, the routes of a container's bridge) mean no other network.

    >>> ipv4, prefix, flags, link_local = 2, 24, 0, 253
    >>> tells_of_loss(_RTM_DELADDR, bytes([ipv4, prefix, flags, _RT_SCOPE_UNIVERSE]))
    True
    >>> tells_of_loss(_RTM_DELADDR, bytes([ipv4, prefix, flags, link_local]))
    False
    """
    if message_type == _RTM_DELADDR:
        _family, _length, _flags, scope = struct.unpack_from("=BBBB", payload)
        return bool(scope == _RT_SCOPE_UNIVERSE)
    if message_type == _RTM_DELROUTE:
        _family, destination_length, _, _, table = struct.unpack_from("=BBBBB", payload)
        return bool(destination_length == 0 and table == _RT_TABLE_MAIN)
    return False
