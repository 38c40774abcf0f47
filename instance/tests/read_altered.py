"""Reads the folder of an altered table with DuckDB and with delta-rs, no KalamDB running, and prints what each sees as JSON."""
import json
import pathlib
import sys

import duckdb
import duckdb_extension_delta
from deltalake import DeltaTable, QueryBuilder

COLUMNS = "id, number, CAST(m AS VARCHAR) AS m, t, w"
FILTER = "number = 30 AND id = 3"

folder = sys.argv[1]
connection = duckdb.connect()
[extension] = pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
connection.execute(f"LOAD '{extension}'")


def by_duckdb(columns, condition):
    return connection.execute(f"SELECT {columns} FROM delta_scan('{folder}') WHERE {condition} ORDER BY id").fetchall()


def by_delta_rs(columns, condition):
    query = f"SELECT {columns} FROM t WHERE {condition} ORDER BY id"
    batches = QueryBuilder().register("t", DeltaTable(folder)).execute(query).read_all()
    names = [name.split()[-1] for name in columns.split(", ")]
    return [list(row) for row in zip(*[batches.column(name).to_pylist() for name in names])]


print(json.dumps({
    "duckdb": by_duckdb(COLUMNS, "TRUE"),
    "duckdb filtered": by_duckdb("id", FILTER),
    "delta-rs": by_delta_rs(COLUMNS, "TRUE"),
    "delta-rs filtered": by_delta_rs("id", FILTER),
}))
