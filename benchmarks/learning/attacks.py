"""What attackers send: omniscient ones, who know what every honest peer has and sends.

Stacks have the shape (peers, numbers); all attackers of a peer send the same.
"""

import math

import numpy as np

from ml.update.encoding import Floats


def alie(honest: Floats, deviations: float) -> Floats:
    """A little is enough (Baruch et al., arXiv 1902.06156): the mean of the honest, and so many of
    their standard deviations off in every number.
    """
    spread = honest.std(axis=0, ddof=1)
    attack: Floats = honest.mean(axis=0) - np.float32(deviations) * spread
    return attack


def inner_product_manipulation(honest: Floats, factor: float) -> Floats:
    """The mean of the honest, turned around (Xie et al., arXiv 1903.03936)."""
    attack: Floats = np.float32(-factor) * honest.mean(axis=0)
    return attack


def dissensus(own: Floats, others: Floats, factor: float, attackers: int) -> Floats:
    """Away from the others (He et al., arXiv 2202.01545, section on the dissensus attack).

    ``own`` is the model of the peer that is attacked, ``others`` those of its honest neighbours,
    all neighbours weigh the same. With factor 1 the mean stays where it is, above 1 it goes away
    from the others.
    """
    attack: Floats = own - np.float32(factor / attackers) * (others - own).sum(axis=0)
    return attack


def nearby(own: Floats, random: np.random.Generator) -> Floats:
    """Nearly the peer's own model, so that whoever judges by distance finds nobody else near."""
    noise: Floats = random.standard_normal((own.size,), np.float32)
    attack: Floats = own + np.float32(1e-6 * _norm(own) / _norm(noise)) * noise
    return attack


def disguised_dissensus(
    own: Floats, others: Floats, factor: float, attackers: int, gradient: Floats, help_: float
) -> Floats:
    """Dissensus that also goes down ``gradient``, by ``help_`` times as far, to pass for help."""
    away = dissensus(own, others, factor, attackers)
    step = help_ * _norm(away - own) / max(_norm(gradient), 1e-30)
    return away - np.float32(step) * gradient


def random_noise(honest: Floats, factor: float, random: np.random.Generator) -> Floats:
    """Normal noise, so many times as long as an honest update."""
    values: Floats = random.standard_normal((honest.shape[1],), np.float32)
    length = sum(_norm(one) for one in honest) / len(honest)
    attack: Floats = np.float32(factor * length / _norm(values)) * values
    return attack


def _norm(values: Floats) -> float:
    return math.sqrt(float(np.vdot(values, values)))
