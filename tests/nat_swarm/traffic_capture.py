"""All TCP traffic of a machine in the laboratory, as tcpdump sees it, put together to streams."""

import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

from tests.natlab.lab import Host, NatLab
from tests.natlab.lab_process import LabProcess
from tests.system.real_swarm import wait_until

BUFFER_KIB = 64 << 10
START_S = 90.0
_PCAP_MAGIC = 0xA1B2C3D4
_PCAP_HEADER_BYTES = 24
_RECORD = struct.Struct("=IIII")
_ETHERNET_BYTES = 14
_SYN = 0x02


class Flow(NamedTuple):
    """One direction of a connection."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int


class TrafficCapture:
    """Runs from its making until :meth:`stop`."""

    def __init__(self, lab: NatLab, host: Host, directory: Path) -> None:
        self._file = directory / f"{host.name}.pcap"
        self._said = directory / f"{host.name}-tcpdump.log"
        with self._said.open("wb") as said:
            self._process: LabProcess = lab.popen(
                host,
                [
                    *("tcpdump", "-i", "eth0", "-U", "-s", "0", "-B", str(BUFFER_KIB)),
                    # Else Debian's tcpdump writes as a user that may not write there.
                    *("-Z", "root"),
                    *("-w", os.fspath(self._file), "tcp"),
                ],
                stderr=said,
            )
        wait_until("tcpdump listens", lambda: "listening on" in self._said.read_text(), START_S)

    def stop(self) -> None:
        """End it. Fails when the kernel dropped anything."""
        self._process.stop()
        dropped = re.search(r"(\d+) packets dropped by kernel", self._said.read_text())
        assert dropped is not None, self._said.read_text()
        assert dropped[1] == "0"

    def streams(self) -> dict[Flow, bytes]:
        """The bytes of each direction of each connection, in order and once."""
        return tcp_streams(self._file.read_bytes())


def tcp_streams(pcap: bytes) -> dict[Flow, bytes]:
    """From a capture of Ethernet frames in the classic format, of this machine's byte order."""
    assert struct.unpack_from("=I", pcap)[0] == _PCAP_MAGIC
    begins: dict[Flow, int] = {}
    streams: dict[Flow, bytearray] = {}
    at = _PCAP_HEADER_BYTES
    while at < len(pcap):
        _, _, captured, original = _RECORD.unpack_from(pcap, at)
        assert captured == original, "a packet was cut short"
        at += _RECORD.size
        flow, sequence, flags, payload = _segment(pcap[at : at + captured])
        at += captured
        if flags & _SYN:
            begins[flow] = sequence + 1
        begin = begins.setdefault(flow, sequence)
        offset = (sequence - begin) % (1 << 32)
        if payload and offset < 1 << 31:  # else it is a keepalive's byte before the begin
            stream = streams.setdefault(flow, bytearray())
            stream.extend(bytes(max(0, offset - len(stream))))
            stream[offset : offset + len(payload)] = payload
    return {flow: bytes(stream) for flow, stream in streams.items()}


def _segment(frame: bytes) -> tuple[Flow, int, int, bytes]:
    packet = frame[_ETHERNET_BYTES:]
    header_bytes = (packet[0] & 0x0F) * 4
    (length,) = struct.unpack_from("!H", packet, 2)
    segment = packet[header_bytes:length]
    source_port, destination_port, sequence = struct.unpack_from("!HHI", segment)
    data_offset = (segment[12] >> 4) * 4
    flow = Flow(packet[12:16], source_port, packet[16:20], destination_port)
    return flow, sequence, segment[13], segment[data_offset:]
