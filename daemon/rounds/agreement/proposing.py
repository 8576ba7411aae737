"""The outcome that follows from a quorum of promises. Pure, and the same for everyone who looks."""

from collections import Counter
from collections.abc import Mapping

from protocol.identity import PeerId, public_key_of
from protocol.peers.agreement_messages import MAX_LAST, MAX_ROSTER, Outcome, Promise


def set_that_follows(
    promises_by_peer: Mapping[PeerId, Promise], needed_updates: int = 1
) -> Outcome:
    """The outcome that a leader must propose after these promises.

    It is the one that was prepared in the highest ballot. A lying leader can bring two such claims
    about: of these, the one that more voted for, since if any was decided, it is that one.

    If none was prepared, it is the updates that half of the promises or more list: a majority, and
    in ties and pairs the union. Where these are fewer than ``needed_updates``, or none, the swarm's
    rule could do nothing with them, and those who promised go on with the state as it is: without a
    roster nobody could agree on anything ever after.

    The members that half of the promises name lead last in the next round: one
    of those who name them is honest.
    """
    promises = list(promises_by_peer.values())
    prepared = [promise.prepared for promise in promises if promise.prepared is not None]
    if prepared:
        return max(
            prepared, key=lambda one: (one.ballot, len(one.votes), one.outcome.digest)
        ).outcome
    needed = len(promises) / 2
    held = Counter(ref for promise in promises for ref in promise.held)
    new = Counter(key for promise in promises for key in promise.newcomers)
    chosen = sorted(ref for ref, count in held.items() if count >= needed)
    signers = Counter(ref.signer for ref in chosen)
    updates = tuple(ref for ref in chosen if signers[ref.signer] == 1)[:MAX_ROSTER]
    if len(updates) < needed_updates:
        updates = ()
    contributors = {ref.signer for ref in updates}
    newcomers = {key for key, count in new.items() if count >= needed} - contributors
    if not updates:
        newcomers |= {public_key_of(peer) for peer in promises_by_peer}
    room = MAX_ROSTER - len(updates)
    slow = Counter(key for promise in promises for key in promise.slow_to_lead)
    last = sorted(key for key, count in slow.items() if count >= needed)
    return Outcome(
        updates=updates,
        newcomers=tuple(sorted(newcomers)[:room]),
        last_to_lead=tuple(last[:MAX_LAST]),
    )
