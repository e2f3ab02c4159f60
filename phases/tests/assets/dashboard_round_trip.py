"""Reads dashboards as Grafana's own types and writes them again: what they do not know is gone then, and told."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(ours, theirs, path):
    if isinstance(ours, dict):
        for key, value in ours.items():
            if not isinstance(theirs, dict) or key not in theirs:
                yield f"{path}.{key}"
            else:
                yield from lost(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list):
        if not isinstance(theirs, list) or len(ours) != len(theirs):
            yield path
        else:
            for at, (one, other) in enumerate(zip(ours, theirs)):
                yield from lost(one, other, f"{path}[{at}]")
    elif ours != theirs:
        yield path


register_default_plugins()
failed = False
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        ours = json.load(file)
    theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
    for path in lost(ours, theirs, ours["uid"]):
        failed = True
        print(f"{name}: Grafana's types do not know {path}")
sys.exit(failed)
