"""Agrees on one round's set of updates, so that those who live through it hold equal weights.

It does so though fewer than a third of them lie, arbitrarily and together.

Theory of operation
===================

**Who takes part.** The roster: the peers that the last round's certificate names. n of them, of
which f = (n - 1) // 3 may lie. A *full quorum* (daemon/rounds/agreement/quorums.py) is so large
that two of them share a signer who does not lie, and that the honest ones alone make one.

**What a peer says**, each thing signed, and on disk before it is sent (vote_book.py):

1. *Promise(b, held, newcomers, prepared, slow)*. "I have closed the round. I take part in ballot b,
   and in none before it. I hold these updates. The last outcome that I saw prepared is this one;
   here are the votes that prove it. These led slowly."
2. *Proposal(b, outcome, promises)*, from the ballot's leader: "From these promises this follows."
   They are named by digest; a peer that lacks one asks for it. The outcome is a function of the
   promises (proposing.py), so everybody checks it, and the leader chooses at most whose promises it
   waits for. As two quorums share an honest peer, and what half of the promises list is in, nothing
   that a quorum of honest peers held is left out; and as half of a quorum are more than f, an
   honest peer holds each chosen update and gives it to those who lack it.
3. *Prepare(b, digest)*. "I checked that proposal, I hold all of it, and vote for no other one in
   b." A quorum of these is a proof that no other outcome has a quorum in b, whatever its leader
   sent to whom: two quorums would share an honest peer, which votes once.
4. *Accept(b, digest)*. "I saw a quorum of Prepares." A quorum of these is the decision, and the
   certificate. More than f of its signers are honest and will show the proof in every later
   promise; every later quorum of promises holds one of them; so a later ballot can propose the
   same outcome only.

**What is believed.** Of a promise: its lists are its signer's claim about itself, and no more; the
prepared outcome counts only by the votes in it (more than f, so at least one honest peer checked a
proposal that led to it). Of a proposal: nothing, everything in it is recomputed. Of a vote: that
its signer cast it. A message that is not as it must be is refused; it ends nothing.

**Later ballots.** A ballot's time (BALLOT_TIMEOUT_S) counts from when a quorum has come to it, so
that nobody runs ahead alone. It ends when that time is up, when its leader is gone, or proves a
liar by a proposal that does not follow. A peer enters a later ballot by its own clock, or when more
than f others are there: one of them is honest and had a reason. So liars cannot hurry the honest
from ballot to ballot, and a liar that leads costs its ballot and no more. Once a round is closed
and the network delivers, each leader that is gone or lies, at most f, can cost the others a ballot
to catch up and one to get over: a round ends within (2 f + 3) * BALLOT_TIMEOUT_S. Liars that
promise to a few only are shown to all by those few; a round that more than f have closed is closed
by everybody within seconds.

**When fewer live.** As long as a full quorum lives, nothing less decides. When fewer do, the
majority of the roster decides, and when not even that lives, the majority of the living: today's
swarms are pairs and triples on laptops, and must go on when one is shut. Then a network that is
parted decides twice, and a liar among the few can bring it about; the certificates say that they
are weak, and daemon/rounds/lineage/succession.py picks the line that goes on. A peer that lives and
says nothing for a whole ballot is passed over in that count, as long as a majority remains: a
peer that hangs counts as gone.

**Wasted time.** Who promises late, leads slowly or leads in vain breaks no rule that anybody could
prove. Each peer notes it by its own clock (pace.py), and remembers it over rounds
(daemon/rounds/patience.py). For a late promise a leader waits no more for a while. Promises name
slow leaders; whom half of them name, the outcome names too, so that everybody lets it lead last
(leaders.py).

**Contradictions.** Two different messages of one kind and ballot from one signer are evidence: it
lies, or two daemons run with one identity. The first counts; the pair goes to evidence.py, which
keeps it, and from then on the signer's votes count nowhere on this peer. Where another peer does
not know it yet, its certificate still counts here, since that bears lies.

**Restarts.** What was said in the last ballot is said again, word for word. If the roster is not
the same as then, or the file is lost, the peer starts in a ballot in which it has said nothing, or
sits the round out. A vote that the disk does not take is not said; it is tried again, and until
then the peer counts as one that does not live. The only voter of a roster goes on without.

Sans-IO: signed messages and the time go in; envelopes to send, wants and the outcome come out.
"""
