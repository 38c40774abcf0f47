//! Whose turn it is. So many statements work at the same time, and so many of one user; others wait, in the order in which they came.
//!
//! A turn is held while a statement works, and not while its client is slow to send or to read. What tells and stops what runs passes by:
//! KILL needs no turn, and queries of system tables alone have turns of their own.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::sql::sqlparser::ast::{ObjectName, Query, Visit, Visitor};
use kalamdb_engine::schema::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bind::names::{self, INFORMATION_SCHEMA, SYSTEM};
use crate::parse::{ParsedStatement, Statement};

/// Short statements at the same time.
const SHORT: usize = 16;
/// Of one user.
const SHORT_OF_USER: usize = 4;

/// How many at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnsConfig {
    /// Statements that work.
    pub statements: usize,
    /// Those of one user.
    pub of_user: usize,
}

/// What kind of work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// It stops other work, and waits for nothing.
    Free,
    /// It reads nothing but system tables.
    Short,
    /// Anything else.
    Ordinary,
}

impl Lane {
    /// That of a request, which goes by its longest statement.
    pub fn of(batch: &[ParsedStatement], namespace: &str) -> Self {
        let of = |parsed: &ParsedStatement| match &parsed.statement {
            Statement::KillQuery(_) | Statement::KillJob(_) => Self::Free,
            Statement::Query(query) => Self::of_query(query, namespace),
            _ => Self::Ordinary,
        };
        batch.iter().map(of).max().unwrap_or(Self::Ordinary)
    }

    /// That of a query.
    pub fn of_query(query: &Query, namespace: &str) -> Self {
        let mut relations = Relations { namespace, found: false };
        let is_short = query.visit(&mut relations).is_continue() && relations.found;
        if is_short { Self::Short } else { Self::Ordinary }
    }
}

struct Relations<'a> {
    namespace: &'a str,
    found: bool,
}

impl Visitor for Relations<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = names::table_name(relation, self.namespace).ok();
        if !name.is_some_and(|name| [SYSTEM, INFORMATION_SCHEMA].contains(&name.namespace.as_str())) {
            return ControlFlow::Break(());
        }
        self.found = true;
        ControlFlow::Continue(())
    }
}

/// All turns of a database.
pub struct Turns {
    ordinary: Arc<Share>,
    short: Arc<Share>,
    open: Arc<Share>,
    open_short: Arc<Share>,
}

impl Turns {
    /// Gives so many.
    pub fn new(config: TurnsConfig) -> Self {
        let share = |all: usize, of_user: usize| Arc::new(Share::new(all, of_user.min(all)));
        Self {
            ordinary: share(config.statements, config.of_user),
            short: share(SHORT, SHORT_OF_USER),
            open: share(config.statements, config.of_user),
            open_short: share(SHORT, SHORT_OF_USER),
        }
    }

    /// The user's turn in that lane, which it has to wait for.
    pub fn of(&self, lane: Lane, user: &UserId) -> Turn {
        Turn::new(lane, [&self.short, &self.ordinary], user)
    }

    /// For as long as a load or a streamed result is open, however slow its client: those hold memory, but no work.
    pub async fn open(&self, lane: Lane, user: &UserId) -> Turn {
        let mut turn = Turn::new(lane, [&self.open_short, &self.open], user);
        turn.resume().await;
        turn
    }
}

/// A user's turn; given back when it is dropped.
pub struct Turn {
    /// None where there is nothing to wait for.
    share: Option<Arc<Share>>,
    user: UserId,
    held: Option<[OwnedSemaphorePermit; 2]>,
}

impl Turn {
    fn new(lane: Lane, [short, ordinary]: [&Arc<Share>; 2], user: &UserId) -> Self {
        let share = match lane {
            Lane::Free => None,
            Lane::Short => Some(Arc::clone(short)),
            Lane::Ordinary => Some(Arc::clone(ordinary)),
        };
        Self { share, user: user.clone(), held: None }
    }

    /// Waits for it, unless it is held.
    pub async fn resume(&mut self) {
        if let (Some(share), None) = (&self.share, &self.held) {
            self.held = share.take(&self.user).await;
        }
    }

    /// Lets others go on.
    pub fn pause(&mut self) {
        self.held = None;
    }
}

/// So many turns, and so many for one user.
struct Share {
    all: Arc<Semaphore>,
    of_user: usize,
    /// Of users that have one or wait for one.
    users: Mutex<HashMap<UserId, Weak<Semaphore>>>,
}

impl Share {
    fn new(all: usize, of_user: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_user, users: Mutex::default() }
    }

    /// The user's own first: whoever waits for that keeps nobody else waiting.
    async fn take(&self, user: &UserId) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = self.of(user).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some([own, all])
    }

    fn of(&self, user: &UserId) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = users.get(user).and_then(Weak::upgrade) {
            return known;
        }
        users.retain(|_, semaphore| semaphore.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.of_user));
        users.insert(user.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::parse::parse_batch;

    fn has(turn: &mut Turn) -> bool {
        turn.resume().now_or_never().is_some()
    }

    #[test]
    fn a_user_takes_no_more_than_its_own_and_gives_them_back() {
        let turns = Turns::new(TurnsConfig { statements: 3, of_user: 2 });
        let of = |user: &str| turns.of(Lane::Ordinary, &UserId::from(user));
        let (mut first, mut second, mut third) = (of("ann"), of("ann"), of("ann"));
        assert!(has(&mut first) && has(&mut second) && !has(&mut third), "ann has two");
        let (mut bobs, mut more) = (of("bob"), of("bob"));
        assert!(has(&mut bobs) && !has(&mut more), "all together have three");
        first.pause();
        assert!(has(&mut more), "a slow client keeps nobody waiting");
        assert!(!has(&mut third));
        drop((first, more));
        assert!(has(&mut third));
        drop((second, third, bobs));
        assert!(has(&mut of("cid")));
        assert_eq!(turns.ordinary.users.lock().unwrap().len(), 1, "nobody is remembered who has none");
    }

    #[test]
    fn what_tells_and_stops_what_runs_passes_by() {
        let lane = |sql: &str| Lane::of(&parse_batch(sql).unwrap(), "default");
        assert_eq!(lane("KILL QUERY 'x'"), Lane::Free);
        assert_eq!(lane("SELECT * FROM system.queries q JOIN system.users u ON q.user_id = u.user_id"), Lane::Short);
        assert_eq!(lane("SELECT 1 FROM information_schema.tables; KILL JOB 'x'"), Lane::Short);
        for ordinary in [
            "SELECT 1",
            "SELECT * FROM t",
            "SELECT * FROM system.queries, t",
            "SELECT * FROM system.queries WHERE user_id IN (SELECT id FROM t)",
            "KILL QUERY 'x'; DELETE FROM t",
        ] {
            assert_eq!(lane(ordinary), Lane::Ordinary, "{ordinary}");
        }
        let turns = Turns::new(TurnsConfig { statements: 1, of_user: 1 });
        let user = UserId::from("ann");
        let (mut busy, mut short, mut kill) =
            (turns.of(Lane::Ordinary, &user), turns.of(Lane::Short, &user), turns.of(Lane::Free, &user));
        assert!(has(&mut busy) && has(&mut short) && has(&mut kill));
    }
}
