//! A `KalamDB` of a cluster, as its user meets it: apply, wait, log in, and end its pod without mercy.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value as Json;

use crate::forward::PortForward;
use crate::kubectl::{Kubectl, condition, summary};
use crate::sql::{Client, refused};
use crate::wait::{self, Seen};

/// The kind, as kubectl knows it.
pub const KIND: &str = "kalamdb";
/// The port of the client Service.
pub const PORT: u16 = 8080;
/// A database, or its next pod, is ready by then: it includes the start of a container on a busy machine.
pub const READY_LIMIT: Duration = Duration::from_secs(300);

const LOGIN_LIMIT: Duration = Duration::from_secs(180);

/// A database and the way to it.
pub struct Database {
    kubectl: Kubectl,
    name: String,
    /// Asked in every waiting loop; its error ends the wait.
    go_on: fn() -> Result<()>,
    forward: Option<PortForward>,
}

impl Database {
    /// The database `name` in the Kubernetes namespace of `kubectl`; `go_on` is asked while waiting.
    pub fn new(kubectl: Kubectl, name: &str, go_on: fn() -> Result<()>) -> Self {
        Self { kubectl, name: name.to_owned(), go_on, forward: None }
    }

    /// kubectl in its Kubernetes namespace.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Waits until the operator calls it ready; `tell` hears each state that it passes through.
    pub fn wait_until_ready(&self, tell: impl FnMut(&str)) -> Result<()> {
        self.wait_for_condition("Ready", "True", tell).map(drop)
    }

    /// Waits until the database is ready in its newest form, and that form is of `image`: a database of an earlier
    /// operator is ready before it is restarted.
    pub fn wait_until_it_runs(&self, image: &str, tell: impl FnMut(&str)) -> Result<()> {
        self.wait_telling(&format!("{} to run {image}", self.name), tell, |object| {
            let has = |kind, status: &str| condition(object, kind).filter(|condition| condition["status"] == status);
            let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            let newest = seen && object["status"]["image"] == image;
            (newest && has("Progressing", "False").is_some() && has("Ready", "True").is_some()).then_some(())
        })
    }

    /// Waits until a condition has that status, and returns the condition.
    pub fn wait_for_condition(&self, kind: &str, status: &str, tell: impl FnMut(&str)) -> Result<Json> {
        self.wait_telling(&format!("condition {kind} of {} to be {status}", self.name), tell, |object| {
            condition(object, kind).filter(|condition| condition["status"] == status).cloned()
        })
    }

    /// Waits until `find` finds something in the `KalamDB`; `tell` hears each state that it passes through.
    fn wait_telling<T>(&self, what: &str, mut tell: impl FnMut(&str), find: impl Fn(&Json) -> Option<T>) -> Result<T> {
        let mut told = String::new();
        self.wait_for(what, |object| {
            let state = summary(object);
            if state != told {
                tell(&state);
                told.clone_from(&state);
            }
            Ok(find(object).map_or(Seen::Waiting(state), Seen::Ready))
        })
    }

    /// Waits until `look` is content with the `KalamDB`.
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Json) -> Result<Seen<T>>) -> Result<T> {
        self.kubectl.wait_for(KIND, &self.name, what, READY_LIMIT, |object| {
            (self.go_on)()?;
            look(object)
        })
    }

    /// The generated password of root.
    pub fn root_password(&self) -> Result<String> {
        self.kubectl.secret(&format!("{}-credentials", self.name), "root-password")
    }

    /// Logs in as root through the client Service.
    pub fn root(&mut self) -> Result<Client> {
        let password = self.root_password()?;
        self.login("root", &password)
    }

    /// Logs in through the client Service. A port-forward that ended with its pod is begun anew.
    pub fn login(&mut self, user: &str, password: &str) -> Result<Client> {
        let waited = wait::until("the client Service to answer", LOGIN_LIMIT, || {
            (self.go_on)()?;
            let attempt = self.url().and_then(|url| Client::login(&url, user, password));
            match attempt {
                Ok(client) => Ok(Seen::Ready(client)),
                Err(error) if refused(&error).is_some() => Err(error),
                Err(error) => {
                    self.forward = None;
                    Ok(Seen::Waiting(format!("{error:#}")))
                }
            }
        });
        waited.with_context(|| format!("failed to log in to {} as {user}", self.name))
    }

    /// Where the client Service answers, from here.
    pub fn url(&mut self) -> Result<String> {
        match &self.forward {
            Some(forward) => Ok(forward.url()),
            None => {
                let forward = PortForward::start(&self.kubectl, &format!("service/{}", self.name), PORT)?;
                let url = forward.url();
                self.forward = Some(forward);
                Ok(url)
            }
        }
    }

    /// Kills the pod without a chance to clean up, and waits until the next one serves.
    pub fn kill_pod(&mut self) -> Result<()> {
        let pod = format!("{}-0", self.name);
        let before = self.kubectl.get("pod", &pod)?.with_context(|| format!("there is no pod {pod}"))?;
        self.kubectl.run(&["delete", "pod", &pod, "--force", "--grace-period=0"])?;
        self.forward = None;
        self.kubectl.wait_for("pod", &pod, "the next pod to be ready", READY_LIMIT, |pod| {
            (self.go_on)()?;
            let new = pod["metadata"]["uid"] != before["metadata"]["uid"];
            let ready = condition(pod, "Ready").is_some_and(|condition| condition["status"] == "True");
            Ok(if new && ready { Seen::Ready(()) } else { Seen::Waiting(format!("new: {new}, ready: {ready}")) })
        })?;
        self.wait_until_ready(|_| {})
    }

    /// What kubectl has to say about it.
    pub fn account(&self) -> String {
        self.kubectl.account(KIND, &self.name)
    }
}
