//! `SUBSCRIBE TO` over HTTP: nothing is pushed here, the answer says where and how to subscribe.

use datafusion::sql::sqlparser::ast::{self, Ident, SetExpr, TableFactor};
use kalamdb_engine::schema::SqlType;
use kalamdb_engine::value::Value;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::show::rows_of;
use super::{Outcome, Scope, Statements};
use crate::bind::names;
use crate::parse::{Statement, Subscribe, parse_batch};
use crate::relations::View;
use crate::sql_types::Tables;
use crate::{ErrorCode, SqlError, planner};

impl Statements {
    /// Judges the query as the subscription itself will, so that a mistake is told here.
    pub(crate) async fn subscribe(&self, written: &Subscribe, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        if !scope.parameters.is_empty() {
            let text = "a subscription outlives its request: write its values as literals, not as parameters";
            return Err(SqlError::new(ErrorCode::InvalidParameter, text));
        }
        let options = options(&written.options)?;
        let relations = self.relations(scope);
        names::table(&relations.catalog, &names::table_name(&written.table, scope.namespace)?)?;
        let query = query(written);
        let session = self.planner.session(&relations, scope.namespace)?;
        let tables = Tables::new(&relations.catalog, scope.namespace);
        planner::plan(&session, query.clone(), scope.parameters, tables).await?;
        let subscription = json!({
            "id": format!("sub-{}", Uuid::now_v7()),
            "sql": query.to_string(),
            "options": options,
        });
        let text = SqlType::Text;
        let columns = [("status", text), ("ws_url", text), ("subscription", SqlType::Json), ("message", text)];
        let row = vec![
            Value::Text("subscription_required".into()),
            Value::Text(scope.ws_url.to_owned()),
            Value::Json(subscription.to_string()),
            Value::Text("connect to ws_url and send the subscription there: changes are pushed over WebSocket".into()),
        ];
        rows_of(&View::new(&columns).with([row])).map(Outcome::Rows)
    }
}

/// `SELECT … FROM t WHERE …`, made of the parsed pieces.
fn query(written: &Subscribe) -> ast::Statement {
    let template = parse_batch("SELECT 1 FROM t").expect("the template is SQL").remove(0).statement;
    let Statement::Query(mut query) = template else { unreachable!("the template is a query") };
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection.clone_from(&written.projection);
        select.selection.clone_from(&written.selection);
        if let Some(TableFactor::Table { name, .. }) = select.from.first_mut().map(|from| &mut from.relation) {
            name.clone_from(&written.table);
        }
    }
    ast::Statement::Query(query)
}

/// Numbers all; sequences may be beyond what JavaScript's numbers hold, so they stay digits.
fn options(written: &[(Ident, String)]) -> Result<Json, SqlError> {
    let mut options = Map::new();
    for (name, text) in written {
        let bad = || SqlError::new(ErrorCode::InvalidValue, format!("option {name} = '{text}': it is a whole number"));
        let number: u64 = text.trim().parse().map_err(|_| bad())?;
        let (name, value) = match name.value.to_ascii_lowercase().as_str() {
            known @ ("batch_size" | "last_rows") => (known.to_owned(), json!(number)),
            "from" | "from_seq_id" => ("from".to_owned(), json!(number.to_string())),
            other => {
                let text = format!("unknown option '{other}': a subscription has batch_size, last_rows and from");
                return Err(SqlError::new(ErrorCode::InvalidValue, text));
            }
        };
        options.insert(name, value);
    }
    Ok(Json::Object(options))
}
