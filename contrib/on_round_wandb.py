#!/usr/bin/env python3
"""Weights & Biases: p2pd join link.txt --on-round contrib/on_round_wandb.py

Needs `pip install wandb` and `wandb login` in the environment that runs it.
"""

import json
import sys

import wandb

news = json.loads(sys.stdin.readline())
run = wandb.init(
    project=news["swarm"],
    id=news["peer_id"][:16],
    name=news["name"] or news["peer_id"][:8],
    resume="allow",
)
values = {name: news[name] for name in ("loss", "updates", "seconds")}
values |= {metric["name"]: metric["value"] for metric in news["metrics"]}
values["training_loss"] = news["losses"].get(news["peer_id"])
run.log({name: value for name, value in values.items() if value is not None}, step=news["round"])
run.finish()
