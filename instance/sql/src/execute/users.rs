//! CREATE, ALTER and DROP USER.

use datafusion::sql::sqlparser::ast::Ident;
use kalamdb_engine::catalog::{CatalogChange, Credentials, Role, User};
use kalamdb_engine::schema::UserId;

use super::{Outcome, Scope, Statements, now};
use crate::bind::names;
use crate::functions::role_name;
use crate::parse::{LogIn, Statement, UserChange};
use crate::{ErrorCode, Identity, SqlError, password};

/// The user that every database has.
const ROOT: &str = "root";

impl Statements {
    pub(crate) async fn user_statement(&self, statement: &Statement, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        match statement {
            Statement::CreateUser { name, if_not_exists, log_in, role, email } => {
                let role = role.as_ref().map_or(Ok(Role::User), bind_role)?;
                let id = UserId::from(names::fold(name).as_str());
                if *if_not_exists && self.engine.catalog().users.contains_key(&id) {
                    return Ok(Outcome::done(format!("User '{id}' exists already")));
                }
                self.create_user(id, log_in, role, email.clone(), scope).await
            }
            Statement::AlterUser { name, change } => self.alter_user(name, change, scope).await,
            Statement::DropUser { name, if_exists } => self.drop_user(name, *if_exists, scope).await,
            other => Err(SqlError::new(ErrorCode::Internal, format!("{other:?} is not about users"))),
        }
    }

    async fn create_user(
        &self,
        id: UserId,
        log_in: &LogIn,
        role: Role,
        email: Option<String>,
        scope: &Scope<'_>,
    ) -> Result<Outcome, SqlError> {
        check_user_name(&id)?;
        check_not_above(scope.identity, role)?;
        if self.engine.catalog().users.contains_key(&id) {
            return Err(SqlError::new(ErrorCode::AlreadyExists, format!("user '{id}' already exists")));
        }
        let credentials = match log_in {
            LogIn::Password(password) => self.credentials(password).await?,
            LogIn::OAuth => Credentials::OAuth,
            LogIn::Internal => Credentials::None,
        };
        let created_at = now().timestamp_millis();
        let user = User { id: id.clone(), role, email, credentials, created_at, updated_at: created_at };
        self.change_catalog(CatalogChange::PutUser(user), scope).await?;
        Ok(Outcome::done(format!("User '{id}' created")))
    }

    async fn alter_user(&self, name: &Ident, change: &UserChange, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let by = scope.identity;
        let id = UserId::from(names::fold(name).as_str());
        let mut user = self.known_user(&id)?;
        if id != by.user {
            check_not_above(by, user.role)?;
        }
        match change {
            UserChange::Password(password) => user.credentials = self.credentials(password).await?,
            UserChange::Email(email) => user.email = Some(email.clone()),
            UserChange::Role(_) if id.as_str() == ROOT => {
                return Err(SqlError::new(ErrorCode::InvalidValue, "the role of 'root' can't be changed"));
            }
            UserChange::Role(role) => {
                user.role = bind_role(role)?;
                check_not_above(by, user.role)?;
            }
        }
        user.updated_at = now().timestamp_millis();
        self.change_catalog(CatalogChange::PutUser(user), scope).await?;
        Ok(Outcome::done(format!("User '{id}' altered")))
    }

    async fn drop_user(&self, name: &Ident, if_exists: bool, scope: &Scope<'_>) -> Result<Outcome, SqlError> {
        let id = UserId::from(names::fold(name).as_str());
        if id.as_str() == ROOT {
            return Err(SqlError::new(ErrorCode::InvalidValue, "the user 'root' can't be dropped"));
        }
        let user = match self.known_user(&id) {
            Err(error) if error.code == ErrorCode::NotFound && if_exists => {
                return Ok(Outcome::done(format!("User '{id}' does not exist")));
            }
            found => found?,
        };
        check_not_above(scope.identity, user.role)?;
        self.change_catalog(CatalogChange::DropUser(id.clone()), scope).await?;
        Ok(Outcome::done(format!("User '{id}' dropped")))
    }

    fn known_user(&self, id: &UserId) -> Result<User, SqlError> {
        let catalog = self.engine.catalog();
        catalog.users.get(id).map(|user| user.as_ref().clone()).ok_or_else(|| SqlError::not_found("user", id))
    }

    async fn credentials(&self, password: &str) -> Result<Credentials, SqlError> {
        password::check_strength(password)?;
        let (password, cost) = (password.to_owned(), self.config.hash_cost);
        let hash = tokio::task::spawn_blocking(move || password::hash(&password, cost)).await;
        hash.map_err(|error| SqlError::new(ErrorCode::Internal, error.to_string()))?.map(Credentials::Password)
    }
}

/// Roles by name, with the aliases that older clients use.
fn bind_role(written: &Ident) -> Result<Role, SqlError> {
    match written.value.to_lowercase().as_str() {
        "user" | "viewer" | "readonly" => Ok(Role::User),
        "service" | "developer" | "analyst" => Ok(Role::Service),
        "dba" | "admin" => Ok(Role::Dba),
        "system" => Ok(Role::System),
        other => {
            let text = format!("unknown role '{other}': it is user, service, dba or system");
            Err(SqlError::new(ErrorCode::InvalidValue, text))
        }
    }
}

fn check_not_above(by: &Identity, role: Role) -> Result<(), SqlError> {
    if role <= by.role {
        return Ok(());
    }
    let text =
        format!("user '{}' may not manage users of the role '{}', which is above its own", by.user, role_name(role));
    Err(SqlError::new(ErrorCode::PermissionDenied, text))
}

/// User ids are part of keys and labels: no control characters, not empty, not endless.
fn check_user_name(id: &UserId) -> Result<(), SqlError> {
    const LONGEST: usize = 128;
    let name = id.as_str();
    if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
        let text = format!("'{name}' can't name a user: 1 to {LONGEST} bytes without control characters");
        return Err(SqlError::new(ErrorCode::InvalidValue, text));
    }
    Ok(())
}
