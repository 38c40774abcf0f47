//! KalamDB's own statements, as a grammar on `sqlparser`'s tokens.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{self, Ident};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use kalamdb_engine::schema::TableKind;

use super::{Show, Statement};
use crate::SqlError;

/// Statements of the protocol that a later version brings: told so instead of being called a syntax error.
const LATER: [&[&str]; 3] = [&["KILL", "LIVE", "QUERY"], &["SAVEPOINT"], &["ROLLBACK", "TO"]];

/// A parser that knows words which are keywords only here.
pub(super) struct Grammar<'a> {
    pub(super) parser: Parser<'a>,
}

impl<'a> Grammar<'a> {
    pub(super) fn new(parser: Parser<'a>) -> Self {
        Self { parser }
    }

    /// Any statement, KalamDB's own first.
    pub(super) fn statement(&mut self) -> Result<Statement, SqlError> {
        if self.words(&["KILL", "QUERY"]) {
            return Ok(Statement::KillQuery(self.parser.parse_literal_string()?));
        }
        if let Some(words) = LATER.iter().find(|words| self.peek_words(words)) {
            return Err(SqlError::not_available(words.join(" ")));
        }
        if let Some(statement) = self.execute_as()? {
            return Ok(statement);
        }
        if let Some(statement) = self.own_statement()? {
            return Ok(statement);
        }
        if self.peek_words(&["KILL"]) {
            let found = self.parser.peek_nth_token(1);
            return Ok(self.parser.expected("QUERY or JOB behind KILL", found)?);
        }
        let (first, second) = (self.parser.peek_token(), self.parser.peek_nth_token(1));
        let parsed = self.parser.parse_statement();
        match parsed.map_err(|error| of_definitions(error, &first.token, &second))? {
            ast::Statement::Insert(insert) => Ok(Statement::Insert(Box::new(insert))),
            ast::Statement::Update(update) => Ok(Statement::Update(Box::new(update))),
            ast::Statement::Delete(delete) => Ok(Statement::Delete(Box::new(delete))),
            ast::Statement::Query(query) => Ok(Statement::Query(query)),
            explain @ ast::Statement::Explain { .. } => explained(explain),
            other => Err(SqlError::not_available(format!("the statement '{}'", first_words(&other.to_string())))),
        }
    }

    /// Where the next token begins; none at the end.
    pub(super) fn place(&self) -> Option<Location> {
        let next = self.parser.peek_token_ref();
        (next.token != Token::EOF).then_some(next.span.start)
    }

    /// Nothing may follow a statement but `;`.
    pub(super) fn expect_end(&mut self) -> Result<(), SqlError> {
        match self.parser.peek_token() {
            token if token.token == Token::EOF => Ok(()),
            token => Ok(self.parser.expected("end of statement", token)?),
        }
    }

    fn own_statement(&mut self) -> Result<Option<Statement>, ParserError> {
        if self.words(&["CREATE", "NAMESPACE"]) {
            let if_not_exists = self.words(&["IF", "NOT", "EXISTS"]);
            return Ok(Some(Statement::CreateNamespace { name: self.name()?, if_not_exists }));
        }
        if self.words(&["DROP", "NAMESPACE"]) {
            let if_exists = self.words(&["IF", "EXISTS"]);
            let name = self.name()?;
            return Ok(Some(Statement::DropNamespace { name, if_exists, cascade: self.words(&["CASCADE"]) }));
        }
        if self.words(&["ALTER", "NAMESPACE"]) {
            let name = self.name()?;
            self.expect_words(&["SET", "OPTIONS"])?;
            return Ok(Some(Statement::AlterNamespace { name, options: self.options()? }));
        }
        if self.words(&["USE"]) {
            self.words(&["NAMESPACE"]);
            return Ok(Some(Statement::Use(self.name()?)));
        }
        if let Some(statement) = self.table_statement()? {
            return Ok(Some(statement));
        }
        if let Some(statement) = self.user_statement()? {
            return Ok(Some(statement));
        }
        if let Some(statement) = self.transaction_statement() {
            return Ok(Some(statement));
        }
        if let Some(statement) = self.storage_statement()? {
            return Ok(Some(statement));
        }
        if self.words(&["SUBSCRIBE", "TO"]) {
            return self.subscribe().map(|subscribe| Some(Statement::Subscribe(Box::new(subscribe))));
        }
        if self.words(&["KILL", "JOB"]) {
            return self.parser.parse_literal_string().map(|id| Some(Statement::KillJob(id)));
        }
        self.show().map(|show| show.map(Statement::Show))
    }

    fn table_statement(&mut self) -> Result<Option<Statement>, ParserError> {
        let kinds =
            [(Some(TableKind::User), "USER"), (Some(TableKind::Shared), "SHARED"), (Some(TableKind::Stream), "STREAM")];
        for (kind, word) in kinds.into_iter().chain([(None, "TABLE")]) {
            let after_kind: &[&str] = if kind.is_some() { &[word, "TABLE"] } else { &["TABLE"] };
            if self.words(&[&["CREATE"], after_kind].concat()) {
                return self.create_table(kind).map(|table| Some(Statement::CreateTable(table)));
            }
            if self.words(&[&["ALTER"], after_kind].concat()) {
                return self.alter_table(kind).map(|table| Some(Statement::AlterTable(Box::new(table))));
            }
            if self.words(&[&["DROP"], after_kind].concat()) {
                let if_exists = self.words(&["IF", "EXISTS"]);
                return Ok(Some(Statement::DropTable { name: self.parser.parse_object_name(false)?, kind, if_exists }));
            }
        }
        Ok(None)
    }

    fn transaction_statement(&mut self) -> Option<Statement> {
        if self.words(&["START", "TRANSACTION"]) {
            return Some(Statement::Begin);
        }
        let words = [
            ("BEGIN", Statement::Begin),
            ("COMMIT", Statement::Commit),
            ("END", Statement::Commit),
            ("ROLLBACK", Statement::Rollback),
        ];
        let (_, statement) = words.into_iter().find(|(word, _)| self.words(&[word]))?;
        if !self.words(&["TRANSACTION"]) {
            self.words(&["WORK"]);
        }
        Some(statement)
    }

    fn show(&mut self) -> Result<Option<Show>, ParserError> {
        if self.words(&["SHOW", "NAMESPACES"]) {
            return Ok(Some(Show::Namespaces));
        }
        if self.words(&["SHOW", "STORAGES"]) {
            return Ok(Some(Show::Storages));
        }
        if self.words(&["SHOW", "MANIFEST"]) {
            return Ok(Some(Show::Manifest));
        }
        if self.words(&["SHOW", "TABLES"]) {
            let within = self.words(&["IN"]) || self.words(&["FROM"]);
            return Ok(Some(Show::Tables(if within { Some(self.name()?) } else { None })));
        }
        if self.words(&["SHOW", "STATS", "FOR", "TABLE"]) {
            return Ok(Some(Show::Stats(self.parser.parse_object_name(false)?)));
        }
        if self.words(&["SHOW", "COLUMNS"]) {
            if !self.words(&["IN"]) {
                self.expect_words(&["FROM"])?;
            }
            return Ok(Some(Show::Columns(self.parser.parse_object_name(false)?)));
        }
        let describes_query = ["SELECT", "WITH", "VALUES"].iter().any(|word| self.peek_word(1, word));
        if !describes_query && (self.words(&["DESCRIBE"]) || self.words(&["DESC"])) {
            self.words(&["TABLE"]);
            let name = self.parser.parse_object_name(false)?;
            return Ok(Some(if self.words(&["HISTORY"]) { Show::History(name) } else { Show::Columns(name) }));
        }
        Ok(None)
    }

    /// `(k = v, …)`, values bare or quoted, each name once in whatever case.
    pub(super) fn options(&mut self) -> Result<Vec<(Ident, String)>, ParserError> {
        self.parser.expect_token(&Token::LParen)?;
        let mut names = BTreeSet::new();
        let options = self.parser.parse_comma_separated(|parser| {
            let name = parser.parse_identifier()?;
            if !names.insert(name.value.to_lowercase()) {
                let text = format!("the option '{}' is given twice{}", name.value, name.span.start);
                return Err(ParserError::ParserError(text));
            }
            parser.expect_token(&Token::Eq)?;
            let value = match parser.next_token() {
                token if matches!(token.token, Token::Number(..)) => token.token.to_string(),
                token => match token.token {
                    Token::Word(word) => word.value,
                    Token::SingleQuotedString(text) => text,
                    _ => return parser.expected("an option's value", token),
                },
            };
            Ok((name, value))
        })?;
        self.parser.expect_token(&Token::RParen)?;
        Ok(options)
    }

    pub(super) fn name(&mut self) -> Result<Ident, ParserError> {
        self.parser.parse_identifier()
    }

    /// Takes these words if they come next, all of them or none.
    pub(super) fn words(&mut self, words: &[&str]) -> bool {
        let found = self.peek_words(words);
        if found {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        found
    }

    pub(super) fn expect_words(&mut self, words: &[&str]) -> Result<(), ParserError> {
        if self.words(words) {
            return Ok(());
        }
        let found = self.parser.peek_token();
        self.parser.expected(&words.join(" "), found)
    }

    fn peek_words(&self, words: &[&str]) -> bool {
        self.peek_words_at(0, words)
    }

    pub(super) fn peek_words_at(&self, from: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(at, word)| self.peek_word(from + at, word))
    }

    fn peek_word(&self, at: usize, word: &str) -> bool {
        match &self.parser.peek_nth_token_ref(at).token {
            Token::Word(found) => found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word),
            _ => false,
        }
    }
}

/// The parser knows other things to CREATE, ALTER and DROP than there are.
fn of_definitions(error: ParserError, first: &Token, second: &TokenWithSpan) -> ParserError {
    const KNOWN: [(&str, &str); 3] = [
        ("CREATE", "NAMESPACE, [USER|SHARED|STREAM] TABLE, USER or STORAGE behind CREATE"),
        ("ALTER", "NAMESPACE, [USER|SHARED|STREAM] TABLE, USER or STORAGE behind ALTER"),
        ("DROP", "NAMESPACE, [USER|SHARED|STREAM] TABLE, USER or STORAGE behind DROP"),
    ];
    let found = format!("found: {second}{}", second.span.start);
    match (&error, KNOWN.into_iter().find(|(word, _)| first.to_string().eq_ignore_ascii_case(word))) {
        (ParserError::ParserError(text), Some((_, known))) if text.ends_with(&found) => {
            ParserError::ParserError(format!("Expected: {known}, {found}"))
        }
        _ => error,
    }
}

/// Only queries can be explained: explaining a write would need a plan that DataFusion never runs.
fn explained(statement: ast::Statement) -> Result<Statement, SqlError> {
    match &statement {
        ast::Statement::Explain { statement: inner, .. } if matches!(**inner, ast::Statement::Query(_)) => {
            Ok(Statement::Explain(Box::new(statement)))
        }
        _ => Err(SqlError::not_available("EXPLAIN of anything but a query")),
    }
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use crate::parse::{Show, Statement, parse_batch};

    #[test]
    fn statements_of_a_batch_keep_their_own_text() {
        let batch = parse_batch("CREATE NAMESPACE a;\n ;SELECT 'x;y' AS \"ü;\"\n ; show tables in a").unwrap();
        let texts: Vec<_> = batch.iter().map(|parsed| parsed.text.as_str()).collect();
        assert_eq!(texts, ["CREATE NAMESPACE a", "SELECT 'x;y' AS \"ü;\"", "show tables in a"]);
        assert!(
            matches!(&batch[2].statement, Statement::Show(Show::Tables(Some(namespace))) if namespace.value == "a")
        );
    }

    #[test]
    fn errors_say_which_statement_and_where() {
        let error = parse_batch("SELECT 1; CREATE NAMESPACE IF a b").unwrap_err();
        assert!(error.message.starts_with("Statement 2 failed: Expected: end of statement, found: a"), "{error}");
        let error = parse_batch("SAVEPOINT a").unwrap_err();
        assert_eq!(error.message, "Statement 1 failed: SAVEPOINT is not available in this version");
        for (sql, at) in [
            ("SELECT 1;\nCREATE NAMESPACE", "found: EOF at Line: 2, Column: 17"),
            ("SELECT *\n FROM t WHERE", "found: EOF at Line: 2, Column: 14"),
            (
                "CREATE USER u WITH\n  MAGIC",
                "Expected: PASSWORD, OAUTH or INTERNAL, found: MAGIC at Line: 2, Column: 3",
            ),
            ("SELECT 'open", "at Line: 1, Column: 8"),
            (
                "EXECUTE AS USER 'u' (DROP TABLE t)",
                "Expected: SELECT, INSERT, UPDATE or DELETE, found: DROP at Line: 1, Column: 22",
            ),
        ] {
            let error = parse_batch(sql).unwrap_err();
            assert!(error.message.contains(at), "{sql}: {error}");
        }
        for (sql, expected) in [
            ("DROP THING t", "STREAM] TABLE, USER or STORAGE behind DROP, found: THING at Line: 1, Column: 6"),
            (
                "ALTER THING t",
                "Expected: NAMESPACE, [USER|SHARED|STREAM] TABLE, USER or STORAGE behind ALTER, found: THING at",
            ),
            ("create thing t", "USER or STORAGE behind CREATE, found: thing at Line: 1, Column: 8"),
            ("KILL 5", "Expected: QUERY or JOB behind KILL, found: 5 at Line: 1, Column: 6"),
            ("KILL QUERY 5", "Expected: literal string, found: 5"),
            (
                "CREATE TABLE t (id INT PRIMARY KEY,\n  FOREIGN KEY (b) REFERENCES u (c))",
                "Expected: a column or PRIMARY KEY (…), which is a table's only constraint, found: FOREIGN at Line: 2, Column: 3",
            ),
            ("CREATE TABLE t (id INT, CONSTRAINT pk PRIMARY KEY (id))", "found: CONSTRAINT at Line: 1, Column: 25"),
            ("CREATE TABLE t (id INT PRIMARY KEY, UNIQUE (id))", "found: UNIQUE at Line: 1, Column: 37"),
            ("CREATE TABLE t (id INT PRIMARY KEY, CHECK (id > 1))", "found: CHECK at Line: 1, Column: 37"),
            ("ALTER NAMESPACE n SET OPTIONS (a = 1, A = 2)", "the option 'A' is given twice at Line: 1, Column: 39"),
        ] {
            let error = parse_batch(sql).unwrap_err();
            assert!(error.message.contains(expected), "{sql}: {error}");
        }
        let error = parse_batch("ALTER TABLE t ALTER COLUMN c SET COLOUR").unwrap_err();
        assert!(error.message.contains("Expected: SET or DROP with NOT NULL or DEFAULT"), "{error}");
    }

    #[test]
    fn words_of_the_grammar_are_names_elsewhere() {
        for sql in [
            "SELECT storage, flush, role, email FROM namespace",
            "DESCRIBE a.b",
            "DESC TABLE b",
            "CREATE USER alice WITH PASSWORD 'x' ROLE dba EMAIL 'a@b'",
            "CREATE USER TABLE a.b (id BIGINT PRIMARY KEY)",
            "STORAGE FLUSH ALL IN a",
            "STORAGE COMPACT ALL IN a",
            "STORAGE COMPACT TABLE a.b",
            "STORAGE COMPACT ALL",
            "DROP USER IF EXISTS 'alice' CASCADE",
            "CREATE USER IF NOT EXISTS \"Al\" WITH OAUTH EMAIL 'a@b' ROLE 'viewer'",
            "EXECUTE AS USER 'alice' (INSERT INTO t VALUES (1), (2)); EXECUTE AS USER bob (SELECT * FROM t)",
            "SUBSCRIBE TO a.b WHERE x = '1' OPTIONS (last_rows = 10, batch_size = 5)",
            "SUBSCRIBE TO SELECT id, key FROM a.b OPTIONS (from = '12')",
            "KILL JOB 'x-1'",
            "CREATE STORAGE IF NOT EXISTS cold TYPE filesystem NAME 'Cold' DESCRIPTION 'd' BASE_DIRECTORY '/x' CONFIG '{}'",
            "CREATE STORAGE 's3-eu' TYPE 's3' PATH 's3://b/p' NAME 'EU'",
            "ALTER STORAGE cold SET NAME 'Colder'; STORAGE CHECK cold; STORAGE CHECK 's3-eu' EXTENDED; DROP STORAGE IF EXISTS cold",
            "SELECT timestamp, key, value, type, data, role, events FROM kill",
            "CREATE TABLE events (timestamp TIMESTAMP PRIMARY KEY, key TEXT, value INT, type TEXT, data JSON, role TEXT)",
            "SELECT data ->> 'a', data -> 'b' -> 0, data ? 'c' FROM events",
            "CREATE TABLE t (constraint INT PRIMARY KEY, check INT, unique INT, foreign INT)",
            "SELECT begin, work FROM transaction",
            "BEGIN WORK; COMMIT TRANSACTION; START TRANSACTION; END; BEGIN; ROLLBACK",
        ] {
            parse_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }
}
