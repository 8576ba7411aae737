"""docs/metrics.md, made from the metrics themselves: ``python -m daemon.web.metrics.document``."""

from collections.abc import Iterable

from daemon.web.metrics.exposition import Metric
from daemon.web.metrics.peer import PEER_METRICS
from daemon.web.metrics.server import SERVER_METRICS

TEMPLATE = """\
# Metrics

Numbers for [Prometheus](https://prometheus.io/) and what reads its format. This page is made from
the code by `python -m daemon.web.metrics.document > docs/metrics.md`.

A peer answers `/metrics` beside its page: `p2pd join link.txt --web 127.0.0.1:9100`, on its own
machine alone. `p2pd metrics` prints the same. A server answers it where
`p2pd serve --metrics HOST:PORT` says, and so do `p2pd rendezvous` and `p2pd relay`. No metric names
a peer or an address, so their number does not grow with the swarm.

```
scrape_configs:
  - job_name: p2pd
    static_configs:
      - targets: ["127.0.0.1:9100"]
```

`contrib/grafana-dashboard.json` shows them in Grafana.

## Of a peer

{peer}

`path` is one of `direct`, `punched`, `ice`, `relay`, `connecting` and `failed`; `outcome` is
`accepted` or `refused`; `phase` is what `p2pd status` calls it.

## Of a server

{server}

`outcome` is the word by which the server's log calls it.
"""


def metrics_page() -> str:
    """The whole page."""
    return TEMPLATE.format(peer=_table(PEER_METRICS), server=_table(SERVER_METRICS))


def _table(metrics: Iterable[Metric]) -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{one}`' for one in metric.labels)} |"
        f" {metric.help} |"
        for metric in metrics
    ]
    return "\n".join(["| name | type | labels | what it says |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(metrics_page(), end="")
