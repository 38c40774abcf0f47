//! Why the object store can't be used, in words that stay the same for as long as the reason does.
//!
//! The client's own errors name the request that met them: what was tried, its id, how long it took. Whoever looks again and again, such
//! as the operator, would take each for news. Here only the reason is kept, and what a person can do about it.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;

use object_store::client::{HttpError, HttpErrorKind};

/// A reason why requests to the object store fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    kind: Kind,
    /// Where the store is, for people.
    store: String,
    /// What the store, or the way to it, says; without anything that differs from one request to the next.
    reason: String,
}

/// Who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// There is no way to the store, or nobody answers in time.
    Unreachable,
    /// A connection ended in the middle of a request, which says nothing of the next one.
    BrokenOff,
    /// The store answers that there is no such bucket.
    NoBucket,
    /// The store knows the keys not, or lets them not do what is needed.
    Denied,
    /// Anything else that a later try may mend.
    Other,
}

impl Trouble {
    /// The trouble behind an error of the store at `store`; none where the store works, and it is an object that is not as expected.
    pub fn of(store: &str, error: &object_store::Error) -> Option<Self> {
        let answer = Answer::of(error);
        let kind = match error {
            // A listing hides in `Generic` what other requests have a variant for.
            _ if let Some(kind) = answer.as_ref().and_then(Answer::kind) => kind,
            object_store::Error::NotFound { .. } | object_store::Error::AlreadyExists { .. } => return None,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => Kind::Denied,
            error => on_the_way(error),
        };
        let reason = match (answer, kind) {
            (Some(answer), _) => answer.to_string(),
            (None, Kind::BrokenOff) => "the connection broke off".to_owned(),
            (None, _) => last_cause(error),
        };
        Some(Self { kind, store: store.to_owned(), reason })
    }

    /// What is known once `newer` was met as well: it stands for both, unless it tells less.
    pub fn followed_by(&self, newer: &Self) -> Self {
        if newer.kind == Kind::BrokenOff { self.clone() } else { newer.clone() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, store, reason } = self;
        match kind {
            Kind::Unreachable => {
                write!(
                    formatter,
                    "the object store ({store}) can't be reached: {reason}; check that it runs, and its endpoint"
                )
            }
            Kind::NoBucket => write!(formatter, "the object store ({store}) has no such bucket: {reason}; create it"),
            Kind::Denied => {
                write!(
                    formatter,
                    "the object store ({store}) refuses the keys: {reason}; check them, and what they may do"
                )
            }
            Kind::BrokenOff | Kind::Other => {
                write!(formatter, "the object store ({store}) does not answer as it should: {reason}")
            }
        }
    }
}

/// Whether the request reached the store at all.
fn on_the_way(error: &object_store::Error) -> Kind {
    let http = causes(error).find_map(|cause| cause.downcast_ref::<HttpError>());
    match http.map(HttpError::kind) {
        Some(HttpErrorKind::Connect | HttpErrorKind::Timeout) => Kind::Unreachable,
        Some(HttpErrorKind::Request | HttpErrorKind::Interrupted) => Kind::BrokenOff,
        _ => Kind::Other,
    }
}

/// The end of the chain, which says most: that nothing listens, below three layers of "error sending request". Clients look for the
/// system's own words in any reply, and take them for a failure of their own connection: so these are others.
fn last_cause(error: &object_store::Error) -> String {
    let system = causes(error).filter_map(|cause| cause.downcast_ref::<std::io::Error>()).last();
    match system.map(std::io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => NOBODY.to_owned(),
        Some(ErrorKind::TimedOut) => SILENCE.to_owned(),
        Some(kind @ (ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable)) => kind.to_string(),
        _ => in_other_words(causes(error).last().unwrap_or(error).to_string().trim().trim_end_matches(':')),
    }
}

const NOBODY: &str = "nothing listens at its address";
const SILENCE: &str = "it gave no answer in time";

fn in_other_words(text: &str) -> String {
    let lower = text.to_lowercase();
    if lower.contains("connection refused") {
        NOBODY.to_owned()
    } else if lower.contains("timed out") {
        SILENCE.to_owned()
    } else {
        text.to_owned()
    }
}

fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |cause: &&(dyn Error + 'static)| (*cause).source())
}

/// What S3 says of keys that it does not take.
const DENIALS: [&str; 5] =
    ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"];

/// What S3 says in the XML of an error.
struct Answer {
    code: String,
    message: String,
}

impl Answer {
    fn of(error: &object_store::Error) -> Option<Self> {
        let text = error.to_string();
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(content, _)| content.trim().to_owned())
        };
        Some(Self { code: element("Code")?, message: element("Message").unwrap_or_default() })
    }

    fn kind(&self) -> Option<Kind> {
        match self.code.as_str() {
            "NoSuchBucket" => Some(Kind::NoBucket),
            code => DENIALS.contains(&code).then_some(Kind::Denied),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message.trim_end_matches('.');
        write!(formatter, "{}{}{message}", self.code, if message.is_empty() { "" } else { ": " })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors as the client makes them, told the way that they are told to people.
    fn told(error: &object_store::Error) -> Option<String> {
        Trouble::of("bucket kalam at http://s3:7070", error).map(|trouble| trouble.to_string())
    }

    fn generic(source: impl Into<Box<dyn Error + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: source.into() }
    }

    fn http(kind: HttpErrorKind, cause: ErrorKind) -> object_store::Error {
        generic(HttpError::new(kind, std::io::Error::from(cause)))
    }

    #[test]
    fn a_store_that_is_away_is_told_with_the_last_cause_and_how_to_mend_it() {
        let refused = told(&http(HttpErrorKind::Connect, ErrorKind::ConnectionRefused));
        let expected = "the object store (bucket kalam at http://s3:7070) can't be reached: nothing listens at its address; check that \
                        it runs, and its endpoint";
        assert_eq!(refused.as_deref(), Some(expected));
    }

    #[test]
    fn no_words_are_told_that_clients_take_for_a_failure_of_their_own() {
        let causes = [ErrorKind::ConnectionRefused, ErrorKind::TimedOut, ErrorKind::HostUnreachable];
        let mut all: Vec<_> = causes.map(|cause| told(&http(HttpErrorKind::Connect, cause))).into();
        all.extend(["operation timed out", "Connection refused (os error 111)"].map(|text| told(&generic(text))));
        for told in all.into_iter().flatten() {
            assert!(!told.contains("timed out") && !told.to_lowercase().contains("connection refused"), "{told}");
        }
    }

    #[test]
    fn what_differs_between_requests_is_left_out() {
        let answer = |request: &str, code: &str| {
            generic(format!(
                "Error performing PUT http://s3/{request} in 12ms - Server returned non-2xx status code: 503: <Error><Code>{code}</Code>\
                 <Message>Please reduce your request rate.</Message><RequestId>{request}</RequestId></Error>"
            ))
        };
        assert_eq!(told(&answer("A1", "SlowDown")), told(&answer("B2", "SlowDown")));
        assert_ne!(told(&answer("A1", "SlowDown")), told(&answer("A1", "InternalError")));
        assert!(told(&answer("A1", "AccessDenied")).expect("trouble").contains("refuses the keys: AccessDenied"));
        assert!(
            told(&answer("A1", "SlowDown")).expect("trouble").ends_with("SlowDown: Please reduce your request rate")
        );
    }

    #[test]
    fn a_missing_bucket_is_trouble_and_a_missing_object_is_not() {
        let missing = |code: &str| object_store::Error::NotFound {
            path: "identity.json".into(),
            source: format!("404: <Code>{code}</Code><Message>not here</Message>").into(),
        };
        assert!(told(&missing("NoSuchBucket")).expect("trouble").ends_with("NoSuchBucket: not here; create it"));
        assert_eq!(told(&missing("NoSuchKey")), None);
    }

    #[test]
    fn a_connection_that_broke_off_does_not_hide_what_is_known() {
        let trouble = |kind, cause| Trouble::of("", &http(kind, cause)).expect("trouble");
        let broken = trouble(HttpErrorKind::Interrupted, ErrorKind::ConnectionReset);
        let refused = trouble(HttpErrorKind::Connect, ErrorKind::ConnectionRefused);
        assert_eq!(refused.followed_by(&broken), refused);
        assert_eq!(broken.followed_by(&refused), refused);
    }
}
