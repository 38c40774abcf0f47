//! Points between the steps of the engine's tasks, at which a scheduled test lets one task at a time go on.
//!
//! The shipped binary has none of it: [`point!`] is nothing there, and [`lock`] takes the lock. In tests a task that nobody schedules
//! passes its points too. One that is left at a point for good has died there, as far as its job goes. Nothing here decides who goes on; that
//! is the scheduler's.

use tokio::sync::{Mutex, MutexGuard};

/// Says that the task has come to the end of a step, and waits until the scheduler lets it go on to the next.
macro_rules! point {
    ($name:literal) => {
        #[cfg(test)]
        $crate::point::scheduled::reach($name).await;
    };
}
pub(crate) use point;

/// Takes the lock. A scheduled task that must wait for it gives its turn away instead, for its holder needs one to go on.
pub(crate) async fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    while scheduled::is_scheduled() {
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(_) => scheduled::reach("lock").await,
        }
    }
    mutex.lock().await
}

#[cfg(test)]
pub(crate) mod scheduled {
    //! The tasks' side of the scheduler: what a task that is polled for a turn finds on its thread.

    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::task::{Poll, Waker};

    thread_local! {
        static CURRENT: RefCell<Option<Rc<Turn>>> = const { RefCell::new(None) };
    }

    /// Whether a task may go on, and where it waits.
    #[derive(Default)]
    pub struct Turn {
        may_go: Cell<bool>,
        at: Cell<Option<&'static str>>,
        waiting: RefCell<Option<Waker>>,
    }

    impl Turn {
        /// Lets the task go on to its next point.
        pub fn give(&self) {
            self.may_go.set(true);
            if let Some(waiting) = self.waiting.borrow_mut().take() {
                waiting.wake();
            }
        }

        /// The point at which the task waits for a turn; none while it goes on.
        pub fn waits_at(&self) -> Option<&'static str> {
            self.at.get().filter(|_| !self.may_go.get())
        }

        /// Polls a task that is scheduled by this turn.
        pub fn during<T>(self: &Rc<Self>, poll: impl FnOnce() -> T) -> T {
            struct Ends;
            impl Drop for Ends {
                fn drop(&mut self) {
                    CURRENT.set(None);
                }
            }
            CURRENT.set(Some(self.clone()));
            let _ends = Ends;
            poll()
        }
    }

    /// Whether the task that is polled now is a scheduled one.
    pub fn is_scheduled() -> bool {
        CURRENT.with_borrow(Option::is_some)
    }

    /// Waits for a turn.
    pub async fn reach(name: &'static str) {
        let mut waits = false;
        std::future::poll_fn(|context| {
            CURRENT.with_borrow(|current| {
                let Some(turn) = current else { return Poll::Ready(()) };
                if waits && turn.may_go.replace(false) {
                    turn.at.set(None);
                    return Poll::Ready(());
                }
                waits = true;
                turn.at.set(Some(name));
                *turn.waiting.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
        })
        .await;
    }
}
