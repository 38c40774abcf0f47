"""Reads a table's folder with DuckDB and with delta-rs, no KalamDB running, and prints what each sees as JSON."""
import json
import pathlib
import sys

import duckdb
import duckdb_extension_delta
from deltalake import DeltaTable, QueryBuilder

COLUMNS = "_user_id, c1, c2, c3"

folder = sys.argv[1]
connection = duckdb.connect()
[extension] = pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
connection.execute(f"LOAD '{extension}'")
by_duckdb = connection.execute(f"SELECT {COLUMNS} FROM delta_scan('{folder}') ORDER BY ALL").fetchall()

batches = QueryBuilder().register("t", DeltaTable(folder)).execute(f"SELECT {COLUMNS} FROM t").read_all()
columns = [batches.column(name).to_pylist() for name in COLUMNS.split(", ")]
by_delta_rs = sorted(list(row) for row in zip(*columns))

print(json.dumps({"duckdb": by_duckdb, "delta-rs": by_delta_rs, "version": DeltaTable(folder).version()}))
