//! `EXECUTE AS USER`: a statement on rows, as another user.

use datafusion::sql::sqlparser::ast::Ident;

use super::{Outcome, Scope, Statements};
use crate::parse::Statement;
use crate::{SqlError, audit, authorize};

impl Statements {
    pub(crate) async fn execute_as(
        &self,
        user: &Ident,
        statement: &Statement,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let identity = authorize::impersonated(user, &self.engine.catalog(), scope.identity)?;
        // Before it runs: one that fails, or whose client goes away, may have shown something of that user by then.
        if let Some(entry) = scope.audited {
            self.engine.record_access(vec![entry.clone()]).await.map_err(audit::unrecorded)?;
        }
        let as_other = Scope { identity: &identity, impersonated: true, audited: None, ..*scope };
        // Boxed, since statements run within statements here.
        let outcome = Box::pin(self.run(statement, &as_other)).await?;
        Ok(Outcome::As(identity.user, Box::new(outcome)))
    }
}
