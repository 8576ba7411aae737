"""Whether this machine's line costs by the byte, as NetworkManager tells over D-Bus.

https://networkmanager.dev/docs/api/latest/nm-dbus-types.html#NMMetered

>>> import asyncio
>>> asyncio.run(on_metered_line("unix:path=/nowhere"))  # nobody tells
False
"""

import asyncio
import contextlib

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
DEADLINE_S = 5.0
_MANAGER = "org.freedesktop.NetworkManager"
_METERED = frozenset({"u 1", "u 3"})
"""NM_METERED_YES: somebody said so. NM_METERED_GUESS_YES: a telephone's hotspot, mostly."""


async def on_metered_line(bus: str = SYSTEM_BUS) -> bool:
    """Whether NetworkManager says so of the line by which this machine reaches the internet.

    False where nobody tells: without D-Bus, NetworkManager or systemd's ``busctl``, and when they
    do not answer within :data:`DEADLINE_S`. ``bus``: the bus's address.
    """
    question = (f"--address={bus}", "get-property", _MANAGER, f"/{_MANAGER.replace('.', '/')}")
    try:
        asked = await asyncio.create_subprocess_exec(
            *("busctl", *question, _MANAGER, "Metered"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(DEADLINE_S):
            answer, _ = await asked.communicate()
    except TimeoutError:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            asked.kill()
        await asked.wait()
    return answer.decode("ascii", "replace").strip() in _METERED
