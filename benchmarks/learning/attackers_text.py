"""What docs/learning-attackers.md says beside its tables."""

INTRODUCTION = """
What attackers among the peers can do to the training of MNIST, under each rule that a swarm can be
founded with. The attackers know everything: the models and updates of all honest peers, before they
send their own. The model is that of the built-in task (three convolutions, 115 000 parameters).
Everything follows from a seed. Written by `python -m benchmarks.learning.attackers`, which takes
about two hours on one core.

**Which to take.** Where attackers are a minority of all: `--exchange mesh --aggregation
centered_clip`. Where they can be half of a peer's partners: `--exchange gossip --aggregation
trial`. Neither helps against more of them than that. `allreduce` trusts every member with its part.
"""

RING_TEXT = """
The setting of ClippedGossip's experiment (arXiv 2202.01545), with the strengths of the attacks that
were published with it: five honest peers in a ring, to each of whom two attackers are attached;
MNIST in 15 IID shards; 900 iterations of SGD with a learning rate of 0.01, momentum 0.9 and batches
of 32. After each iteration a peer mixes its parameters with those of its four neighbours, with
Metropolis weights: 1/5 for each and 1/5 for itself. (The paper's graph has loops that leave 5/9 to
the peer itself; here attackers weigh nearly twice as much.)
The rules are those of real peers (`ml/aggregate/mixing.py`, `ml/averaging/trials.py`); the steps
are this experiment's own: a real peer starts each round with a new optimizer, so that no momentum
outlasts a round.

A peer alone reaches {alone} %, so accuracy by itself shows little: ignoring everyone is one way to
it. The distance tells: the mean of the honest models' distances to each other, as a fraction of
that of peers that stay alone ({distance}).

Accuracy in %, the mean of the honest peers on all test images; in brackets the distance
(no numbers: models that have overflowed):

{rules}
{promises}
![accuracy by iteration](learning-attackers-ring.png)

- *ALIE* (arXiv 1902.06156): the mean of the honest neighbourhood, z standard deviations off.
- *IPM* (arXiv 1903.03936): the negative of its mean, so many times.
- *Dissensus* (arXiv 2202.01545): away from the other honest, so many times as hard as they pull.

The mean gives way to all three. Median and centered clipping judge by distance, and no distance
tells attackers who are half of the neighbours: they can be where the honest are, or nearer, and all
in one direction while the honest are not. `trial` looks at what attackers cannot choose, samples
that the peer keeps back: on these, a move by a share of the way to a neighbour may cost at most
that share of what the round's own training has won (`TrialMixing` in `ml/aggregate/mixing.py`).
Under other strengths, and under attacks made for such rules:

{variants}
- *Nearly the own model*: whoever takes the honest spread from the nearest neighbours finds none.
- *Disguised*: dissensus that also goes down the gradient, half as far as it leads away, so that it
  helps more than it harms. It passes the trials, as help does: the peers do not come together then,
  and learn at least as if each were alone.

With `trial` a peer trains on nine tenths of its samples (of few, on four fifths), and evaluates two
models and one more for each partner on 64 samples a round. Without an attack it is the mean.
"""

MESH_TEXT = """
Rounds as of a swarm with the task's own settings: each peer trains an epoch of its tenth of the
data with Adam, sends its update to everyone, and applies what the rule makes of all updates; eight
rounds. Encoding, decoding, aggregation and the next state are those of real peers. Without an
attack all ten are honest. Accuracy in %, on all test images:

{rules}
{promises}
![accuracy by round](learning-attackers-mesh.png)

- *Sign flip*: the negative of an honest update; *scaled*: the same, 100 times as long.
- *Label flip*: trained as it should be, but towards 9 - label.
- *Noise*: normal, ten times as long as an honest update.
- *ALIE* (arXiv 1902.06156): the mean of the honest, 1.5 standard deviations off in every number.
"""
