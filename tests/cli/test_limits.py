"""What a peer may take of its machine: hours, battery, rates; as they are written, and in force."""

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from jeepney import MessageType, new_error, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

from daemon.control.restraint import Restraint
from daemon.host.limits.hours import Hours
from daemon.host.limits.limits import NO_LIMITS, Limits
from daemon.host.limits.metered import on_metered_line
from daemon.host.limits.power import on_battery
from protocol.errors import ConfigError
from tests.cli.conftest import CommandLine, StartPeer
from transport.clock import Clock

NIGHT = Hours.parse("18:00-08:00")


@pytest.mark.parametrize(
    ("text", "minute", "allowed"),
    [
        ("18:00-08:00", 18 * 60, True),
        ("18:00-08:00", 7 * 60 + 59, True),
        ("18:00-08:00", 8 * 60, False),
        ("18:00-08:00", 17 * 60 + 59, False),
        ("9:30-17:00", 9 * 60 + 30, True),
        ("9:30-17:00", 17 * 60, False),
        ("00:00-24:00", 0, True),
        ("22:00-24:00, 00:00-06:00", 5 * 60, True),
        ("22:00-24:00, 00:00-06:00", 7 * 60, False),
        ("", 12 * 60, True),
    ],
)
def test_hours_of_the_day(text: str, minute: int, *, allowed: bool) -> None:
    hours = Hours.parse(text)
    assert hours.allow(minute) is allowed
    assert Hours.parse(str(hours)) == hours


@pytest.mark.parametrize(
    "text", ["18-8", "25:00-08:00", "08:60-09:00", "08:00-08:00", "24:01-1:00"]
)
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="hours"):
        Hours.parse(text)


def test_reason_to_pause_says_until_when() -> None:
    limits = Limits(
        hours=Hours.parse("12:00-13:00,18:00-08:00"), pause_on_battery=True, pause_on_metered=True
    )

    def reason(limits: Limits, hour: int, *, battery: bool = False, metered: bool = False) -> str:
        return limits.reason_to_pause(hour * 60, is_on_battery=battery, is_metered=metered)

    assert reason(limits, 9) == "until 12:00: hours"
    assert reason(limits, 14, battery=True) == "until 18:00: hours"
    assert reason(limits, 19, battery=True, metered=True) == "while on battery"
    assert reason(limits, 19, metered=True) == "while the line is metered"
    assert reason(limits, 19) == ""
    assert reason(NO_LIMITS, 0, battery=True, metered=True) == ""


def test_limits_change_by_the_names_of_the_options() -> None:
    changed = NO_LIMITS.changed(
        {"upload-rate": "2.5", "hours": "18:00-8:00", "pause-on-battery": "true"}
    )
    assert changed == Limits(upload_mb_s=2.5, hours=NIGHT, pause_on_battery=True)
    assert changed.in_words() == ["sends at most 2.5 MB/s", "trains 18:00-08:00", "not on battery"]
    back = changed.changed({"upload-rate": "off", "hours": "", "pause-on-battery": "false"})
    assert back == NO_LIMITS
    for settings, words in (
        ({"upload-rate": "fast"}, "upload-rate: 'fast' is no rate"),
        ({"upload-rate": "0.001"}, "no rate"),
        ({"log-level": "loud"}, "log-level: 'loud'"),
        ({"threads": "2"}, "cannot be changed while a peer runs; these can: upload-rate"),
    ):
        with pytest.raises(ConfigError, match=words):
            NO_LIMITS.changed(settings)


def supply(root: Path, name: str, **files: str) -> None:
    (root / name).mkdir(parents=True)
    for file, text in files.items():
        (root / name / file).write_text(f"{text}\n")


def test_battery_is_told_by_the_kernels_files(tmp_path: Path) -> None:
    laptop, mouse = tmp_path / "laptop", tmp_path / "mouse"
    supply(laptop, "AC", type="Mains", online="0")
    supply(laptop, "BAT0", type="Battery", status="Discharging")
    assert on_battery(laptop)
    (laptop / "AC" / "online").write_text("1\n")
    assert not on_battery(laptop)
    supply(mouse, "hid", type="Battery", status="Discharging", scope="Device")
    assert not on_battery(mouse)
    assert not on_battery(tmp_path / "nowhere")


BUS = """<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


def network_manager(bus: str, answers: Sequence[int | None]) -> Iterator[None]:
    """Play NetworkManager on ``bus``: what it says of the line, asked time after time; None: it
    refuses to tell."""
    with open_dbus_connection(bus) as connection:
        name = message_bus.RequestName("org.freedesktop.NetworkManager")
        connection.send_and_get_reply(name, timeout=30)
        yield
        for answer in answers:
            question = connection.receive(timeout=30)
            while question.header.message_type is not MessageType.method_call:
                question = connection.receive(timeout=30)
            assert question.body == ("org.freedesktop.NetworkManager", "Metered")
            connection.send(
                new_error(question, "org.freedesktop.DBus.Error.AccessDenied")
                if answer is None
                else new_method_return(question, "v", (("u", answer),))
            )
            yield


@pytest.fixture
def system_bus(tmp_path: Path) -> Iterator[str]:
    """The address of a D-Bus daemon of one's own."""
    config, address = tmp_path / "bus.conf", f"unix:path={tmp_path}/bus"
    config.write_text(BUS.format(socket=tmp_path / "bus"))
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline()
        yield address
        daemon.kill()


@pytest.mark.interop
async def test_metered_line_is_told_over_the_systems_bus(system_bus: str) -> None:
    restraint = Restraint(Limits(pause_on_metered=True), Clock(), bus=system_bus)
    assert not await on_metered_line(system_bus)  # nobody there who knows
    manager = network_manager(system_bus, (1, 2, 3, None))
    await asyncio.to_thread(next, manager)
    seen = []
    for _ in range(4):
        looking = asyncio.create_task(restraint.look())
        await asyncio.to_thread(next, manager)
        await looking
        seen.append(restraint.is_metered)
    assert seen == [True, False, True, False]


async def test_changed_limits_are_looked_at_at_once() -> None:
    restraint = Restraint(NO_LIMITS, Clock())
    restraint.change(Limits(upload_mb_s=2.0))
    await restraint.look_again()  # after a change it does not wait
    assert restraint.limits.upload_mb_s == 2.0


def test_set_changes_a_running_peer_and_refuses_what_it_does_not_know(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = p2pd("set", "upload-rate=2", "hours=18:00-08:00")
    assert (done.returncode, done.stdout) == (
        0,
        "limits: sends at most 2 MB/s, trains 18:00-08:00\n",
    )
    shown = p2pd("status").stdout
    assert "sends at most 2 MB/s, trains 18:00-08:00" in shown
    for word, words in (
        ("uplod-rate=2", "did you mean 'upload-rate'?"),
        ("threads=2", "cannot be changed while a peer runs"),
        ("upload-rate", "write NAME=VALUE"),
        ("upload-rate=x", "no rate from"),
    ):
        refused = p2pd("set", word)
        assert refused.returncode == 2
        assert words in refused.stderr
