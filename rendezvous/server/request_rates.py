"""How often one key, and one network with all its keys, may ask something."""

from rendezvous.server.address_quota import EXEMPT
from rendezvous.server.refusal import RefusalError
from transport.rate_limit import Allowed, Flooding, Rate, RateLimiter, RetryAfter


class FloodError(Exception):
    """The sender was told often enough to slow down."""


class RequestRates:
    """Rates for each CURVE key and for each /24 or /48; keys are free, so one is not enough."""

    def __init__(self, key_rate: Rate, prefix_rate: Rate) -> None:
        self._by_key = RateLimiter(key_rate)
        self._by_prefix = RateLimiter(prefix_rate)

    def pay(self, curve_key: bytes, prefix: str, cost: float, now: float) -> None:
        """Return if the sender may ask something of this ``cost``.

        Raises :class:`RefusalError` with the time after which it may, and :class:`FloodError` when
        it does not heed that.
        """
        verdicts = [self._by_key.take(curve_key, cost, now)]
        if prefix != EXEMPT:
            verdicts.append(self._by_prefix.take(prefix, cost, now))
        for verdict in verdicts:
            match verdict:
                case Allowed():
                    pass
                case Flooding():
                    raise FloodError
                case RetryAfter(seconds):
                    raise RefusalError("retry_after", "too many requests", retry_after_s=seconds)
