"""The state that must come of events, by arithmetic of its own, or the one that a SQLite file holds: a line of MD5 for each
table, over its rows in the order of region and id, columns divided by "|".

    python3 state.py events balances|rows|wide FILE...
    python3 state.py sqlite STORE.db QUERY...
"""

import hashlib
import json
import sqlite3
import sys


def digest(rows):
    """The MD5 of rows in their order, as `string_agg(concat_ws('|', ...), newline)` of a database gives it."""
    lines = ("|".join(map(str, row)) for row in rows)
    total, is_first = hashlib.md5(), True
    for line in lines:
        total.update(line.encode() if is_first else b"\n" + line.encode())
        is_first = False
    return total.hexdigest()


def events(files):
    for file in files:
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def balances(files, keeps_rows):
    accounts, transfers = {}, []
    for event in events(files):
        token, value = event["token"], int(event["value"])
        for account, delta in ((event["from"], -value), (event["to"], value)):
            accounts[token, account] = accounts.get((token, account), 0) + delta
        if keeps_rows:
            transfers.append((token, f"{event['block']}-{event['log_index']}", event["from"], event["to"], value))
    yield digest((*key, balance) for key, balance in sorted(accounts.items()))
    if keeps_rows:
        yield digest(sorted(transfers))


def wide(files, columns):
    """Rows of as many numbers as texts: the sum of the numbers, and the last text."""
    half, rows = columns // 2, {}
    for event in events(files):
        total = half * event["v"] + half * (half + 1) // 2
        rows[event["token"], event["id"]] = (total, event["s"])
    yield digest((*key, *row) for key, row in sorted(rows.items()))


def main(what, *arguments):
    if what == "sqlite":
        store = sqlite3.connect(f"file:{arguments[0]}?mode=ro", uri=True)
        return [digest(store.execute(query)) for query in arguments[1:]]
    kind, *files = arguments
    if kind.startswith("wide"):
        return wide(files, int(kind[4:]))
    return balances(files, kind == "rows")


print("\n".join(main(*sys.argv[1:])))
