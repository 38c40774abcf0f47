//! Tasks of the engine, of which exactly one goes on at a time: from the point where it waits to the next, or to its end.
//!
//! Who goes on is the program's choice. A task that goes on may wait for the committer's thread or for a disk, which go on by themselves;
//! it never waits for another task, for it takes locks by [`crate::point::lock`].

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use futures::future::LocalBoxFuture;

use crate::commit::Committer;
use crate::point::scheduled::Turn;

/// Turns that a task gets, at most, when it is to go on to its end: only one that can't end needs more.
const TURNS: usize = 400;

/// A task, and how it is told what it is.
pub struct Task<K, E> {
    /// What it does, and for whom.
    pub kind: K,
    turn: Rc<Turn>,
    work: LocalBoxFuture<'static, E>,
}

impl<K, E> Task<K, E> {
    /// A task that has not begun.
    pub fn new(kind: K, work: impl Future<Output = E> + 'static) -> Self {
        Self { kind, turn: Rc::default(), work: Box::pin(work) }
    }

    /// Where it waits; only asked of a task that has begun and not ended.
    pub fn waits_at(&self) -> &'static str {
        self.turn.waits_at().unwrap_or("its begin")
    }

    /// Goes on to its next point; gives how it ended, where it did.
    pub async fn go_on(&mut self) -> Option<E> {
        self.turn.give();
        self.until_point().await
    }

    /// The first turn: up to the first point.
    pub async fn begin(&mut self) -> Option<E> {
        self.until_point().await
    }

    async fn until_point(&mut self) -> Option<E> {
        poll_fn(|context| match self.turn.during(|| self.work.as_mut().poll(context)) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if self.turn.waits_at().is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Lets it go on as far as it comes without waiting for anybody.
    async fn push(&mut self) -> Option<E> {
        self.turn.give();
        poll_fn(|context| match self.turn.during(|| self.work.as_mut().poll(context)) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}

/// Tasks that go on together, each up to the committer's queue, which takes what they send for one group; then to the next point.
pub async fn go_on_together<K, E>(committer: &Committer, tasks: &mut [Task<K, E>]) -> Vec<Option<E>> {
    let held = committer.hold().await;
    let mut ended = Vec::with_capacity(tasks.len());
    for task in tasks.iter_mut() {
        ended.push(task.push().await);
    }
    drop(held);
    for (task, ended) in tasks.iter_mut().zip(&mut ended) {
        if ended.is_none() && task.turn.waits_at().is_none() {
            *ended = task.until_point().await;
        }
    }
    ended
}

/// One task from its begin to its end, with nobody between its steps.
pub async fn run_alone<E>(work: impl Future<Output = E> + 'static) -> E {
    let mut task = Task::new((), work);
    let mut ended = task.begin().await;
    for _ in 0..TURNS {
        match ended {
            Some(ended) => return ended,
            None => ended = task.go_on().await,
        }
    }
    panic!("a task that is alone does not end; it waits at {}", task.waits_at());
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::point;

    async fn two_steps(name: &'static str, seen: Rc<RefCell<Vec<String>>>, lock: Rc<tokio::sync::Mutex<()>>) {
        let held = point::lock(&lock).await;
        seen.borrow_mut().push(format!("{name} holds it"));
        point::point!("between");
        drop(held);
        seen.borrow_mut().push(format!("{name} gave it back"));
    }

    #[tokio::test]
    async fn one_task_goes_on_at_a_time_and_a_lock_waits_for_a_turn() {
        let (seen, lock) = (Rc::new(RefCell::new(Vec::new())), Rc::new(tokio::sync::Mutex::new(())));
        let task = |name| Task::new(name, two_steps(name, seen.clone(), lock.clone()));
        let (mut first, mut second) = (task("first"), task("second"));
        assert!(first.begin().await.is_none() && second.begin().await.is_none());
        assert_eq!((first.waits_at(), second.waits_at()), ("between", "lock"));
        assert!(second.go_on().await.is_none(), "it is still held");
        assert!(first.go_on().await.is_some());
        assert!(second.go_on().await.is_none());
        assert_eq!(*seen.borrow(), ["first holds it", "first gave it back", "second holds it"]);
        assert!(second.go_on().await.is_some());
    }
}
