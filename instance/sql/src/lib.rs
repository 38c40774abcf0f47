//! SQL over the table engine: text and parameters in, results out. It knows no HTTP.
//!
//! A statement takes four steps, each in a module of its own:
//!
//! * [`parse`]: text to statements; KalamDB's own extend the standard ones of `sqlparser`;
//! * [`bind`]: names, types and values, judged against the catalog; [`authorize`]: may this user do that?
//! * [`route`]: simple statements on a primary key go straight to the engine, all else to DataFusion;
//! * [`execute`]: what each statement does; [`transaction`]: where it may stand.
//!
//! [`cache`] holds what statements need not find out again, and [`prepared`] is how a plan serves many of them. [`stream`] and [`format`] give
//! results of any size away in pieces, [`load`] takes rows in. [`running`] knows what runs now, [`turns`] how many may,
//! [`memory`] and [`growth`] what they may hold, [`contention`] how writers of the same rows give way to each other.
//!
//! [`wildcard`], [`flag`], [`uuids`], [`zeros`], [`coercion`], [`series`], [`quantified`], [`mod@values`], [`duplicates`], [`calls`], [`checked`] and [`sum`] put
//! right what DataFusion would understand in another way, with [`conversions`] and [`documents`] for values, and [`diagnosis`] what it says
//! of mistakes; [`sql_types`] and [`lineage`] tell what a column of a result is.
//!
//! [`relations`] shows tables, `system` and `information_schema` to DataFusion, of one snapshot and for one user; [`reply`] turns
//! results into the cells of the public protocol.

pub mod audit;
pub mod authorize;
pub mod bind;
pub mod cache;
pub mod calls;
pub mod checked;
pub mod coercion;
pub mod config;
pub mod contention;
pub mod conversions;
pub mod database;
pub mod diagnosis;
pub mod documents;
pub mod duplicates;
pub mod error;
pub mod execute;
pub mod flag;
pub mod format;
pub mod functions;
pub mod growth;
pub mod lineage;
pub mod load;
pub mod memory;
pub mod observe;
pub mod parse;
pub mod password;
pub mod planner;
pub mod prepared;
pub mod quantified;
pub mod relations;
pub mod reply;
pub mod route;
pub mod rows;
pub mod running;
pub mod series;
pub mod sql_types;
pub mod stream;
pub mod sum;
pub mod transaction;
pub mod turns;
pub mod uuids;
pub mod values;
pub mod wildcard;
pub mod zeros;

pub use config::SqlConfig;
pub use database::{Database, Identity, Request};
pub use error::{ErrorCode, SqlError};
pub use observe::{StatementKind, StatementObserver};
pub use relations::{Host, is_view};
