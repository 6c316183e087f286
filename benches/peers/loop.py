"""What one writes in place of a pipeline: thirty lines of Python over sqlite3. Keeps the balance of each account and, with
"rows", every transfer; commits each 10,000 events, with the position, so that it could go on there.

    python3 loop.py CHAIN.ndjson STORE.db [rows]
"""

import json
import resource
import sqlite3
import sys

ROW = "CREATE TABLE transfer (region, id, from_account, to_account, value, PRIMARY KEY (region, id)) WITHOUT ROWID"

chain, store, keeps_rows = sys.argv[1], sys.argv[2], sys.argv[3:] == ["rows"]
db = sqlite3.connect(store, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA synchronous = FULL")
db.execute("CREATE TABLE account (region, id, balance, PRIMARY KEY (region, id)) WITHOUT ROWID")
db.execute(ROW)
db.execute("CREATE TABLE position (only PRIMARY KEY, events)")
balances, changed, transfers, events = {}, set(), [], 0


def commit():
    db.execute("BEGIN")
    rows = sorted((region, account, str(balances[region, account])) for region, account in changed)
    db.executemany("INSERT INTO account VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET balance = excluded.balance", rows)
    db.executemany("INSERT INTO transfer VALUES (?, ?, ?, ?, ?)", transfers)
    db.execute("INSERT OR REPLACE INTO position VALUES (0, ?)", (events,))
    db.execute("COMMIT")
    changed.clear()
    transfers.clear()


with open(chain, encoding="utf-8") as lines:
    for line in lines:
        event = json.loads(line)
        token, value = event["token"], int(event["value"])
        for account, delta in ((token, event["from"]), -value), ((token, event["to"]), value):
            balances[account] = balances.get(account, 0) + delta
            changed.add(account)
        if keeps_rows:
            place = f"{event['block']}-{event['log_index']}"
            transfers.append((token, place, event["from"], event["to"], event["value"]))
        events += 1
        if events % 10_000 == 0:
            commit()
commit()
print(json.dumps({"memory_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
