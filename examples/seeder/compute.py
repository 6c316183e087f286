"""Computes one document a region: of the newest ones, on standard input, and of what is known now, in a file.

    compute.py INPUTS [NOW_MS]
"""

import json
import sys
import time
import uuid

LABELS = [(0.75, "escalation"), (0.4, "tension")]


def snapshot(inputs, before, now):
    signals = inputs["signals"]
    pressure = round(sum(signals.values()) / len(signals), 3)
    label = next((label for least, label in LABELS if pressure >= least), "calm")
    previous = before["regime"]["label"] if before else label
    return {
        "region_id": inputs["region_id"],
        "generated_at": now,
        "meta": {
            "snapshot_id": str(uuid.uuid4()),
            "trigger_reason": "scheduled" if label == previous else "regime_shift",
            "snapshot_confidence": round(min(1.0, len(signals) / 3), 2),
        },
        "regime": {"label": label, "previous_label": previous},
        "balance": {"pressure": pressure},
        "evidence": [{"source": source, "value": value} for source, value in sorted(signals.items())],
    }


def main():
    newest = {document["region_id"]: document for document in map(json.loads, sys.stdin)}
    now = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() // 1_000_000
    with open(sys.argv[1], encoding="utf-8") as lines:
        for inputs in map(json.loads, lines):
            print(json.dumps(snapshot(inputs, newest.get(inputs["region_id"]), now), ensure_ascii=False))


main()
