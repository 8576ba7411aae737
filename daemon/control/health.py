"""What can be wrong with a peer without stopping it: a code, what it is, what to do about it.

A code never changes its meaning, so that scripts can rely on it. ``p2pd status`` exits 1 while any
of these is there.
"""

from daemon.control.status import HealthItem
from protocol.text import counted

CLOCK_WRONG_MS = 30_000
"""A clock that is off by more is told; what is signed for seconds only would fail by then."""


def rendezvous_unreachable(uri: str, reason: str, meanwhile: str) -> HealthItem:
    """Nobody new can find this peer; sessions that stand go on. ``meanwhile``: what it does."""
    return HealthItem(
        "rendezvous-unreachable",
        f"the rendezvous {uri} does not answer{f' ({reason})' if reason else ''}; {meanwhile}",
        "check that it runs and that this machine can reach it; p2pd keeps trying by itself; one"
        " that has another key by now needs a new invite link",
    )


def rendezvous_out_of_reach(uri: str, reason: str, *, on_web_port: bool) -> HealthItem:
    """No rendezvous answers one that is no peer. ``on_web_port``: it was looked for on port 443
    too."""
    if_only_web = (
        ""
        if on_web_port
        else "; a network that lets only the web out reaches it when it is run as 'p2pd serve"
        " --also-443'"
    )
    return HealthItem(
        "rendezvous-unreachable",
        f"the rendezvous {uri} does not answer ({reason}): peers cannot find each other through it",
        "check that it runs, that the URI is right, and that this machine can reach it"
        + if_only_web,
    )


def rendezvous_refused(uri: str, reason: str) -> HealthItem:
    """The rendezvous answers, and says no."""
    return HealthItem(
        "rendezvous-refused",
        f"the rendezvous {uri} refuses this peer: {reason}",
        "ask who runs it; with 'version' upgrade the older side, with 'quota' wait or ask for more",
    )


def relay_unreachable(uri: str, reason: str) -> HealthItem:
    """Peers that only it could connect do not find each other."""
    return HealthItem(
        "relay-unreachable",
        f"the relay {uri} does not answer ({reason}); paths that need no relay are not touched",
        "check that it runs and that this machine can reach it; p2pd keeps trying by itself",
    )


def udp_blocked() -> HealthItem:
    """Only TCP gets out of this network."""
    return HealthItem(
        "udp-blocked",
        "this network lets TCP out and no UDP: paths over UDP (ice) are not possible",
        "nothing needs to be done where peers reach each other otherwise; else ask who runs the"
        " network",
    )


def stun_unreachable() -> HealthItem:
    """No STUN server answers, so nobody can say how this peer is seen from outside."""
    return HealthItem(
        "stun-unreachable",
        "no STUN server answers, over UDP or TCP: what the router does could not be found out",
        "a network that lets only the web out does this, and there a relay on port 443 serves;"
        " else name another server with --stun",
    )


def stun_unresolved(reasons: str) -> HealthItem:
    """The names of all STUN servers lead nowhere; ``reasons`` names the servers."""
    return HealthItem(
        "stun-unresolved",
        f"STUN servers whose names lead nowhere: {reasons}",
        "check the names and this machine's DNS, or name a server by its IP address with --stun",
    )


def stun_unnamed(reason: str) -> HealthItem:
    """No STUN server is known."""
    return HealthItem(
        "stun-unnamed",
        f"{reason}: what the router does could not be found out",
        "name a STUN server with --stun HOST:PORT",
    )


def too_few_peers(present: int, wanted: int) -> HealthItem:
    """The first round waits for others. ``present``: who is connected, this peer included."""
    return HealthItem(
        "too-few-peers",
        f"the first round needs {wanted} peers, and {present} {'is' if present == 1 else 'are'}"
        " connected",
        "start more peers with the swarm's invite link",
    )


def too_few_updates(shortage: str) -> HealthItem:
    """The round cannot end with what there is: the swarm's rule needs more. ``shortage``: of what,
    in words."""
    return HealthItem(
        "too-few-updates",
        f"the round waits: {shortage}",
        "start more peers with the swarm's invite link; where peers are here whose updates do not"
        " come or are refused, 'p2pd peers' and the log name them. It goes on by itself",
    )


def rounds_fail(times: int, reason: str, retry_s: float) -> HealthItem:
    """This peer gets through no round. ``retry_s``: until the next try; 0: it runs."""
    rounds = "the last round" if times == 1 else f"the last {times} rounds"
    retry = (
        f"the next try is in {retry_s:.0f} s, and the others do not wait for this peer until then"
        if retry_s
        else "it is tried again now"
    )
    return HealthItem(
        "rounds-fail",
        f"{rounds} failed here ({reason}); {retry}",
        "see the log; 'p2pd task check' tries the task on this machine; else look at its disk,"
        " memory and device. Rounds go on by themselves",
    )


def device_left(problem: str, device: str) -> HealthItem:
    """The trainer does not train on the device that it should have."""
    return HealthItem(
        "device",
        f"{problem}; this peer trains on {device}",
        "mend the driver, or give the device free: a start of the peer tries it again. Or do"
        " without it: 'p2pd join --device cpu'",
    )


def peer_unreachable(
    names: tuple[str, ...], *, has_relays: bool, lost_relays: tuple[str, ...]
) -> HealthItem:
    """There are peers to whom no path works.

    A relay connects any two that reach it: ``has_relays``, whether the swarm names any, and
    ``lost_relays``, the URIs of those that this peer cannot reach.
    """
    if not has_relays:
        help_text = (
            "the swarm names no relay, over which peers meet in any networks: create it with the"
            " --relay of a 'p2pd relay' or 'p2pd serve', or join with a port that the router"
            " passes on and --advertise HOST:PORT"
        )
    elif lost_relays:
        help_text = (
            "they can meet over a relay, and this peer does not reach"
            f" {', '.join(lost_relays)}: check that it runs"
        )
    else:
        help_text = (
            "they can meet over a relay that both reach: check with 'p2pd status' on the other"
            " machine that its peer runs and reaches one"
        )
    return HealthItem(
        "peer-unreachable", f"no path to {', '.join(names)}", f"'p2pd peers' shows why; {help_text}"
    )


def twin_runs(*, is_later: bool) -> HealthItem:
    """Another daemon has this peer's identity; ``is_later``: it started after this one."""
    which = (
        "it started later and goes on, this one has let its connections go"
        if is_later
        else "this one started later and goes on, the other one gives way"
    )
    return HealthItem(
        "identity-used-twice",
        "another daemon runs with this peer's identity, from a copy of its state directory:"
        f" {which}",
        "stop the one that is not wanted; a second peer needs a state directory of its own: join"
        " there with --state-dir and the invite link",
    )


def clock_wrong(offset_s: float) -> HealthItem:
    """The machine's clock differs from the time that its rendezvous servers tell."""
    text = f"this machine's clock is {clock_difference(-offset_s)} the rendezvous's; p2pd goes by"
    text += " the rendezvous's"
    if offset_s < 0:
        text += ", but takes no newcomer whose invite has expired by this machine's"
    return HealthItem("clock-wrong", text, "set the clock (timedatectl set-ntp true)")


def rendezvous_clock_wrong(uri: str, ahead_s: float) -> HealthItem:
    """One rendezvous's clock differs from the others' and this machine's."""
    return HealthItem(
        "rendezvous-clock-wrong",
        f"the clock of rendezvous {uri} is {clock_difference(ahead_s)} the others'; p2pd goes by"
        " the others'",
        "tell its operator to set its clock (timedatectl set-ntp true)",
    )


def clock_difference(ahead_s: float) -> str:
    """The difference in words, such as ``2 days ahead of`` or ``45 s behind``.

    >>> clock_difference(-45)
    '45 s behind'
    """
    seconds = abs(ahead_s)
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds > 1.5 * length_s:
            span = counted(round(seconds / length_s), unit)
            break
    else:
        span = f"{seconds:.0f} s"
    return f"{span} {'ahead of' if ahead_s > 0 else 'behind'}"


def checkpoints_paused(problem: str) -> HealthItem:
    """Checkpoints cannot be written, as on a full disk."""
    return HealthItem(
        "checkpoints-paused",
        f"{problem}; training goes on without it",
        "make room in the state directory's file system; checkpoints go on by themselves",
    )


def state_unsaved(problem: str) -> HealthItem:
    """A restart would forget something that counts now."""
    return HealthItem(
        "state-unsaved",
        f"not stored: {problem}; it counts all the same, until this peer is restarted",
        "make room in the state directory's file system; it is tried again every few seconds",
    )


def files_damaged(names: tuple[str, ...]) -> HealthItem:
    """Files did not pass when they were read back, and were put aside."""
    return HealthItem(
        "files-damaged",
        f"damaged and put aside in the state directory: {', '.join(names)}; this peer goes on"
        " without what was in there",
        "check the disk; delete what was put aside when you have looked at it",
    )


def event_files_paused(problem: str) -> HealthItem:
    """What TensorBoard shows cannot be written."""
    return HealthItem(
        "event-files-paused",
        f"{problem}; training goes on without them",
        "make room there, or join with another directory: --tensorboard DIR",
    )


def worker_restarting(reason: str) -> HealthItem:
    """The worker process died and is being started again."""
    return HealthItem(
        "worker-restarting",
        f"the training process ended ({reason}) and is started again from the last checkpoint",
        "if it keeps happening, see the log for its last words; out of memory is a common cause",
    )


def worker_stuck(silent_s: float, allowed_s: float) -> HealthItem:
    """The worker process does not get on with what it was asked for."""
    return HealthItem(
        "worker-stuck",
        f"the training process has shown no sign of life for {silent_s:.0f} s; after"
        f" {allowed_s:.0f} s it is started again from the last checkpoint",
        "nothing, if it downloads data; if one step takes so long, a smaller batch helps; else see"
        " what the task waits for: data on a disk or network that does not answer, a device",
    )


def worker_hangs_again(times: int) -> HealthItem:
    """Starting it again does not help."""
    return HealthItem(
        "worker-stuck",
        f"the training process hung and was started again {times} times, and did nothing since",
        "see what the task waits for: data on a disk or network that does not answer, a device;"
        " under systemd all of it is restarted",
    )


def initial_state_differs() -> HealthItem:
    """This machine's bits of round 0 are not the founder's and nobody has those yet."""
    return HealthItem(
        "initial-state-differs",
        "this machine makes other initial weights than the founder's did, and no peer here has"
        " the founder's",
        "let the founder's machine join the swarm once; this peer then takes the weights from it",
    )


def updates_rejected(names: tuple[str, ...], count: int) -> HealthItem:
    """Peers send what does not verify."""
    return HealthItem(
        "updates-rejected",
        f"messages or updates refused {counted(count, 'time')}, from {', '.join(names)}",
        "the log names each; if it goes on, ask the peer's owner, or whoever founded the swarm",
    )


def votes_contradict(peers: tuple[str, ...], file: str) -> HealthItem:
    """Somebody voted twice in one ballot: a liar, or two daemons with one identity."""
    return HealthItem(
        "votes-contradict",
        f"{', '.join(peers)} voted for two things at once; its votes do not count here for a while",
        "ask its owner whether a state directory was copied and two daemons run with it; if not, it"
        f" lies: p2pd ban PEER. Both votes are in {file}",
    )


def votes_not_stored(reason: str) -> HealthItem:
    """This peer sits rounds out, since a restart could make it contradict itself."""
    return HealthItem(
        "votes-not-stored",
        f"this peer does not vote: {reason}; it trains, and follows what the others decide",
        "make room on the disk of the state directory: it votes again within seconds; after a"
        " damaged file it passes by itself with the next round",
    )
