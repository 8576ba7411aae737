#!/usr/bin/env python3
"""trackio: p2pd join link.txt --on-round contrib/on_round_trackio.py

Needs `pip install trackio` in the environment that runs it. `trackio show` shows what it keeps.
"""

import json
import sys

import trackio

news = json.loads(sys.stdin.readline())
trackio.init(project=news["swarm"], name=news["name"] or news["peer_id"][:8], resume="allow")
values = {name: news[name] for name in ("loss", "updates", "seconds")}
values |= {metric["name"]: metric["value"] for metric in news["metrics"]}
values["training_loss"] = news["losses"].get(news["peer_id"])
trackio.log(
    {name: value for name, value in values.items() if value is not None}, step=news["round"]
)
trackio.finish()
