"""Whether this machine runs on its battery, as the kernel tells (Linux, power supply class).

https://docs.kernel.org/power/power_supply_class.html
"""

from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")
_MAX_BYTES = 64


def on_battery(supplies: Path = SUPPLIES) -> bool:
    """Whether a battery of the machine's own is being drained, and no other source is there.

    False where nothing is told: a machine without a battery has no such files. Batteries of mice
    and the like (``scope`` Device) do not count.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as supplies:
    ...     (Path(supplies) / "BAT0").mkdir()
    ...     for name, text in (("type", "Battery"), ("status", "Discharging")):
    ...         _ = (Path(supplies) / "BAT0" / name).write_text(text)
    ...     on_battery(Path(supplies))
    True
    """
    drained = plugged = False
    try:
        found = list(supplies.iterdir())
    except OSError:
        return False
    for supply in found:
        if _read(supply / "scope") == "Device":
            continue
        if _read(supply / "type") == "Battery":
            drained = drained or _read(supply / "status") == "Discharging"
        else:
            plugged = plugged or _read(supply / "online") == "1"
    return drained and not plugged


def _read(path: Path) -> str:
    """What the file says; empty where it is not, or says nothing now."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""
