//! `EXECUTE AS USER`: a statement on rows, as another user.

use datafusion::sql::sqlparser::ast::Ident;

use super::{Outcome, Scope, Statements};
use crate::parse::Statement;
use crate::{SqlError, authorize};

impl Statements {
    pub(crate) async fn execute_as(
        &self,
        user: &Ident,
        statement: &Statement,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        let identity = authorize::impersonated(user, &self.engine.catalog(), scope.identity)?;
        let as_other = Scope { identity: &identity, impersonated: true, ..*scope };
        // Boxed, since statements run within statements here.
        let outcome = Box::pin(self.run(statement, &as_other)).await?;
        Ok(Outcome::As(identity.user, Box::new(outcome)))
    }
}
