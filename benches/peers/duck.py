"""The same result by DuckDB on one thread, into its own file: one aggregation over the whole chain, without handlers, batches
or a checkpoint. The folder of the package is in PYTHONPATH. With "state" prints the MD5 of what is stored.

    python3 duck.py CHAIN.ndjson STORE.db [rows]
    python3 duck.py state STORE.db [rows]
"""

import json
import resource
import sys

import duckdb

COLUMNS = "{block: 'BIGINT', log_index: 'BIGINT', token: 'VARCHAR', \"from\": 'VARCHAR', \"to\": 'VARCHAR', value: 'HUGEINT'}"
TRANSFERS = """CREATE TABLE transfer AS
    SELECT token AS region, block || '-' || log_index AS id, "from" AS from_account, "to" AS to_account, value FROM chain"""
ACCOUNTS = """CREATE TABLE account AS SELECT region, id, sum(delta)::HUGEINT AS balance
    FROM (SELECT token AS region, unnest(["from", "to"]) AS id, unnest([-value, value]) AS delta FROM chain) GROUP BY ALL"""
STATE = {
    "account": "SELECT md5(string_agg(concat_ws('|', region, id, balance), chr(10) ORDER BY region, id)) FROM account",
    "transfer": """SELECT md5(string_agg(concat_ws('|', region, id, from_account, to_account, value), chr(10)
        ORDER BY region, id)) FROM transfer""",
}

chain, store, keeps_rows = sys.argv[1], sys.argv[2], sys.argv[3:] == ["rows"]
db = duckdb.connect(store, config={"threads": 1})
if chain == "state":
    for table in ["account", "transfer"] if keeps_rows else ["account"]:
        print(db.execute(STATE[table]).fetchone()[0])
else:
    path = chain.replace("'", "''")
    db.execute(f"CREATE TEMP VIEW chain AS SELECT * FROM read_json('{path}', format = 'newline_delimited', columns = {COLUMNS})")
    if keeps_rows:
        db.execute(TRANSFERS)
        db.execute("""CREATE OR REPLACE TEMP VIEW chain AS
            SELECT region AS token, from_account AS "from", to_account AS "to", value FROM transfer""")
    db.execute(ACCOUNTS)
    db.close()
    print(json.dumps({"memory_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
