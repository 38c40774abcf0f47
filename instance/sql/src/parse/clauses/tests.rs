use crate::parse::parse_batch;
use crate::{ErrorCode, SqlError};

/// Each is refused by name; the clause begins where the mark stands.
#[test]
fn clauses_that_nothing_carries_out_are_refused_where_they_stand() {
    let mut wrong = Vec::new();
    for (marked, clause) in [
        ("SELECT * FROM t ¦PREWHERE id = 1", "PREWHERE"),
        ("SELECT *\n FROM t ¦PREWHERE id = 1", "PREWHERE"),
        ("SELECT id FROM (SELECT * FROM t ¦PREWHERE id = 1) s", "PREWHERE"),
        ("SELECT 1; SELECT * FROM t ¦PREWHERE id = 1", "PREWHERE"),
        ("EXPLAIN SELECT * FROM t ¦PREWHERE id = 1", "PREWHERE"),
        ("EXECUTE AS USER 'u' (DELETE FROM t ¦PARTITION (p0))", "PARTITION"),
        ("DELETE FROM t ¦PARTITION (p0)", "PARTITION"),
        ("DELETE FROM t ¦PARTITION (p0) WHERE id = 1", "PARTITION"),
        ("UPDATE t ¦PARTITION (p0) SET v = 1", "PARTITION"),
        ("SELECT * FROM t ¦PARTITION (p0)", "PARTITION"),
        ("SELECT v, count(*) FROM t GROUP BY v ¦WITH ROLLUP", "WITH ROLLUP"),
        ("SELECT v, count(*) FROM t GROUP BY v ¦WITH CUBE", "WITH CUBE"),
        ("SELECT v, count(*) FROM t GROUP BY v ¦WITH TOTALS", "WITH TOTALS"),
        ("SELECT id FROM t ¦START WITH id = 1 CONNECT BY id = id", "START WITH"),
        ("SELECT id FROM t ¦CONNECT BY id = id", "CONNECT BY"),
        ("SELECT * FROM t ¦TABLESAMPLE (10 PERCENT)", "TABLESAMPLE"),
        ("SELECT * FROM t ¦SAMPLE (10)", "SAMPLE"),
        ("SELECT * ¦ILIKE '%v%' FROM t", "ILIKE"),
        ("SELECT t.* ¦ILIKE '%v%' FROM t", "ILIKE"),
        ("SELECT * FROM generate_series(1, 3) ¦WITH ORDINALITY", "WITH ORDINALITY"),
        ("SELECT * FROM t ¦FOR JSON AUTO", "FOR JSON"),
        ("SELECT * FROM t ¦FOR XML AUTO", "FOR XML"),
        ("SELECT * FROM t ¦FORMAT JSONCompact", "FORMAT"),
        ("SELECT * FROM t ¦SETTINGS a = 1", "SETTINGS"),
        ("SELECT * FROM t ¦FOR UPDATE", "FOR UPDATE"),
        ("SELECT * FROM t ¦FOR SHARE", "FOR SHARE"),
        ("SELECT * FROM t ¦WITH (NOLOCK)", "WITH"),
        ("SELECT * FROM t ¦FETCH FIRST 2 ROWS ONLY", "FETCH"),
        ("SELECT * FROM t ¦PIVOT (sum(a) FOR b IN ('x'))", "PIVOT"),
        ("SELECT a ¦COLLATE \"C\" FROM t", "COLLATE"),
        ("SELECT a FROM t ORDER BY a ¦COLLATE \"C\"", "COLLATE"),
        ("SELECT * FROM a ¦CROSS APPLY b", "CROSS APPLY"),
        ("SELECT * ¦INTO x FROM t", "INTO"),
        ("SELECT a FROM t ¦SORT BY a", "SORT BY"),
        ("UPDATE t SET v = 1 ¦LIMIT 1", "LIMIT"),
        ("DELETE FROM t WHERE id > 0 ¦LIMIT 1", "LIMIT"),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r ¦LIMIT 5) SELECT * FROM r", "LIMIT"),
        ("INSERT INTO t VALUES (1) RETURNING * ¦EXCLUDE (id)", "EXCLUDE"),
    ] {
        let sql = marked.replace('¦', "");
        let before = marked.split_once('¦').unwrap().0;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        let (named, place) = (format!("failed: {clause}"), format!(" at Line: {line}, Column: {column}"));
        let is_refused = |error: &SqlError| {
            error.code == ErrorCode::NotAvailable && error.message.contains(&named) && error.message.ends_with(&place)
        };
        let answer = parse_batch(&sql);
        if !answer.as_ref().is_err_and(is_refused) {
            wrong.push(format!("{sql}: {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn clauses_without_words_of_their_own_are_refused_too() {
    let mut wrong = Vec::new();
    for sql in [
        "UPDATE t SET v = 1 FROM u",
        "UPDATE t JOIN u ON t.id = u.id SET v = 1",
        "UPDATE t SET v = 1 ORDER BY id",
        "DELETE FROM t USING u WHERE t.id = u.id",
        "DELETE FROM t, u",
        "DELETE t FROM t JOIN u ON t.id = u.id",
        "DELETE FROM t ORDER BY id",
        "INSERT OR REPLACE INTO t VALUES (1)",
        "REPLACE INTO t VALUES (1)",
        "INSERT IGNORE INTO t VALUES (1)",
        "INSERT OVERWRITE t VALUES (1)",
        "INSERT INTO t SET a = 1",
        "INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE v = 1",
        "INSERT INTO t PARTITION (a) VALUES (1)",
        "SELECT TOP 5 * FROM t",
        "SELECT DISTINCT a FROM t LIMIT 1 BY a",
        "SELECT * FROM a GLOBAL JOIN b ON a.id = b.id",
        "SELECT quantile(0.5)(a) FROM t",
        "SELECT array(SELECT 1)",
        "SELECT * RENAME (a AS b) FROM t",
        "SELECT a REGEXP 'x' FROM t",
        "SELECT CONVERT(a, INT) FROM t",
        "SELECT * FROM t |> AGGREGATE count(*) GROUP BY a ASC",
        "WITH r AS (SELECT 1) INSERT INTO t SELECT * FROM r",
    ] {
        // Whether the parser or we refuse it is no matter.
        if parse_batch(sql).is_ok() {
            wrong.push(sql);
        }
    }
    assert!(wrong.is_empty(), "they are read and not refused: {wrong:#?}");
}

#[test]
fn what_is_carried_out_is_not_refused() {
    let mut wrong = Vec::new();
    for sql in [
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b LIMIT 5 OFFSET 2",
        "SELECT /*+ HINT(a) */ a FROM t",
        "SELECT a, rank() OVER w FROM t WINDOW w AS (PARTITION BY b ORDER BY c) QUALIFY rank() OVER w = 1",
        "SELECT a, sum(b) FILTER (WHERE c) FROM t GROUP BY ROLLUP (a) HAVING sum(b) > 1",
        "SELECT a FROM t GROUP BY ALL",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r LIMIT 2",
        "WITH s AS (SELECT 1 UNION SELECT 2 LIMIT 1) SELECT * FROM s",
        "SELECT * EXCLUDE (a) REPLACE (b + 1 AS b) FROM t",
        "SELECT * EXCEPT (a) FROM t",
        "SELECT * FROM a JOIN b USING (id) LEFT JOIN c ON a.id = c.id CROSS JOIN d NATURAL JOIN e",
        "SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.id = a.id) AS s(x, y)",
        "SELECT * FROM UNNEST([1, 2]) AS u(n)",
        "FROM t |> WHERE a > 1 |> AGGREGATE count(*) GROUP BY a",
        "SELECT string_agg(a, ',' ORDER BY b) FROM t",
        "SELECT CASE WHEN a THEN 1 END, CAST(a AS INT), a::INT, EXTRACT(YEAR FROM b), TRIM(a), a IN (1, 2) FROM t",
        "INSERT INTO t (a) VALUES (1), (2) ON CONFLICT (a) DO UPDATE SET b = 1 WHERE t.b = 2 RETURNING *, a AS c",
        "INSERT INTO t DEFAULT VALUES",
        "UPDATE t AS x SET a = 1 WHERE x.b = 2 RETURNING x.*",
        "DELETE FROM t AS x WHERE x.b = 2 RETURNING a",
        "EXPLAIN ANALYZE VERBOSE SELECT 1",
        "VALUES (1), (2) ORDER BY 1 LIMIT 1",
    ] {
        if let Err(error) = parse_batch(sql) {
            wrong.push(format!("{sql}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
