"""Reads a table's folder with DuckDB and with delta-rs, no KalamDB running, and prints what each sees as JSON.

Cells are written as KalamDB's own replies write them; rows are sorted by their JSON text. Arguments after the columns are filters, whose rows
are printed too.
"""
import datetime
import decimal
import json
import pathlib
import sys

import duckdb
import duckdb_extension_delta
from deltalake import DeltaTable, QueryBuilder

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def cell(value, delta_type):
    """One value in the form of KalamDB's replies."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.timezone.utc)
        return (value - EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(value, datetime.date):
        return (value - EPOCH.date()).days
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return list(value)
    if value is not None and delta_type == "long":
        return str(value)
    return value


def rows(found):
    """The rows with their cells in that form, in an order of their own."""
    written = [[cell(value, types[name]) for name, value in zip(columns, row)] for row in found]
    return sorted(written, key=json.dumps)


folder = sys.argv[1]
table = DeltaTable(folder)
types = {field.name: getattr(field.type, "type", str(field.type)) for field in table.schema().fields}
columns = sys.argv[2].split(",")
names = ", ".join(f'"{name}"' for name in columns)

connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
[extension] = pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")
connection.execute(f"LOAD '{extension}'")


def read(where):
    """What each engine finds."""
    by_duckdb = connection.execute(f"SELECT {names} FROM delta_scan('{folder}') {where}").fetchall()
    batches = QueryBuilder().register("t", table).execute(f"SELECT {names} FROM t {where}").read_all()
    by_delta_rs = zip(*(batches.column(name).to_pylist() for name in columns))
    return {"duckdb": rows(by_duckdb), "delta-rs": rows(by_delta_rs)}


filtered = {text: read(f"WHERE {text}") for text in sys.argv[3:]}
print(json.dumps({**read(""), "filtered": filtered, "version": table.version()}))
