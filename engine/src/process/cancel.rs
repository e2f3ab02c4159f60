//! Asking what runs to stop, ever more firmly.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustix::event::{EventfdFlags, eventfd};

/// How firmly a [`Cancel`] token asks. Levels only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Nobody asked for anything.
    None = 0,
    /// Come to a safe point: running commands go on to their end, nothing new is begun.
    Asked = 1,
    /// Commands are ended: TERM, their grace, KILL.
    End = 2,
    /// Commands are killed at once.
    Kill = 3,
}

/// A token that asks what runs to stop. Clones are the same token; [`Cancel::child`] makes a dependent one.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

type Subscriber = Arc<dyn Fn(Level) + Send + Sync>;

#[derive(Default)]
struct Shared {
    level: AtomicU8,
    /// Held so that a token whose parent was dropped still hears of its grandparent.
    _parent: Option<Cancel>,
    /// Readable from the moment that `End` and `Kill` are reached. Made when first waited for.
    events: [OnceLock<OwnedFd>; 2],
    listeners: Mutex<Listeners>,
}

#[derive(Default)]
struct Listeners {
    subscribers: Vec<Subscriber>,
    children: Vec<Weak<Shared>>,
}

impl Cancel {
    /// A token at [`Level::None`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that rises with this one, and can rise alone: one task of a run, say. It costs nothing once dropped.
    pub fn child(&self) -> Self {
        let child = Self(Arc::new(Shared { _parent: Some(self.clone()), ..Shared::default() }));
        let mut listeners = self.0.listeners();
        if listeners.children.len() == listeners.children.capacity() {
            listeners.children.retain(|child| child.strong_count() > 0);
        }
        listeners.children.push(Arc::downgrade(&child.0));
        // Under the lock: a concurrent `raise` either finds the child in the list or has set the level already.
        child.0.level.store(self.0.level.load(Ordering::SeqCst), Ordering::SeqCst);
        drop(listeners);
        child
    }

    /// The level that was reached.
    pub fn level(&self) -> Level {
        self.0.level()
    }

    /// Raises the token, and its children, to `level`; a lower or equal level changes nothing.
    ///
    /// Subscribers are called before this returns, on this thread.
    pub fn raise(&self, level: Level) {
        self.0.raise(level);
    }

    /// Calls `subscriber` with each level that is reached from now on, on the thread that raises it, and with the present
    /// level at once if that is above [`Level::None`]. Two threads that raise together may call it out of order.
    pub fn subscribe(&self, subscriber: impl Fn(Level) + Send + Sync + 'static) {
        let subscriber: Subscriber = Arc::new(subscriber);
        let mut listeners = self.0.listeners();
        let level = self.level();
        listeners.subscribers.push(Arc::clone(&subscriber));
        drop(listeners);
        if level > Level::None {
            subscriber(level);
        }
    }

    /// A descriptor for `poll` that becomes readable when `level` is reached and stays so. Never read from it.
    ///
    /// # Errors
    /// The process has too many descriptors open.
    ///
    /// # Panics
    /// `level` is neither [`Level::End`] nor [`Level::Kill`].
    pub fn fd(&self, level: Level) -> io::Result<BorrowedFd<'_>> {
        assert!(level >= Level::End, "commands do not wait for {level:?}");
        let event = &self.0.events[level as usize - Level::End as usize];
        if event.get().is_none() {
            let fd = eventfd(0, EventfdFlags::CLOEXEC)?;
            // Under the lock: a concurrent `raise` either finds the event or has set the level already.
            let _listeners = self.0.listeners();
            // Another thread may have been faster: its event then stays.
            let _ = event.set(fd);
            if self.level() >= level {
                self.0.signal(level);
            }
        }
        Ok(event.get().expect("it was set above").as_fd())
    }
}

impl Shared {
    fn level(&self) -> Level {
        match self.level.load(Ordering::SeqCst) {
            0 => Level::None,
            1 => Level::Asked,
            2 => Level::End,
            _ => Level::Kill,
        }
    }

    fn raise(&self, level: Level) {
        let (subscribers, children) = {
            let listeners = self.listeners();
            if self.level.fetch_max(level as u8, Ordering::SeqCst) >= level as u8 {
                return;
            }
            for reached in [Level::End, Level::Kill].into_iter().filter(|reached| *reached <= level) {
                self.signal(reached);
            }
            (listeners.subscribers.clone(), listeners.children.clone())
        };
        for child in children.iter().filter_map(Weak::upgrade) {
            child.raise(level);
        }
        for subscriber in subscribers {
            subscriber(level);
        }
    }

    fn signal(&self, level: Level) {
        if let Some(event) = self.events[level as usize - Level::End as usize].get() {
            // It can fail only when its counter is full: then it is readable anyway.
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        // Nothing that happens under the lock can leave it half done, so it is sound even after a panic.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.level()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn readable(cancel: &Cancel, level: Level) -> bool {
        let fd = cancel.fd(level).unwrap();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
    }

    #[test]
    fn levels_only_rise() {
        let cancel = Cancel::new();
        cancel.raise(Level::End);
        cancel.raise(Level::Asked);
        assert_eq!(cancel.level(), Level::End);
    }

    #[test]
    fn descriptors_tell_the_level_whether_asked_for_before_or_after() {
        let cancel = Cancel::new();
        assert!(!readable(&cancel, Level::End));
        cancel.raise(Level::Asked);
        assert!(!readable(&cancel, Level::End));
        cancel.raise(Level::End);
        assert!(readable(&cancel, Level::End) && readable(&cancel, Level::End));
        assert!(!readable(&cancel, Level::Kill));
        cancel.raise(Level::Kill);
        assert!(readable(&cancel.clone(), Level::Kill));

        let leaping = Cancel::new();
        assert!(!readable(&leaping, Level::End));
        leaping.raise(Level::Kill);
        assert!(readable(&leaping, Level::End));
    }

    #[test]
    fn a_child_rises_with_its_parent_and_not_the_reverse() {
        let parent = Cancel::new();
        let (child, grandchild) = (parent.child(), parent.child().child());
        child.raise(Level::End);
        assert_eq!(parent.level(), Level::None);
        parent.raise(Level::Asked);
        assert_eq!(child.level(), Level::End);
        assert_eq!(grandchild.level(), Level::Asked, "though the token between was dropped");
        let middle = parent.child();
        assert_eq!(middle.level(), Level::Asked, "born under a raised parent");
        let below = middle.child();
        parent.raise(Level::Kill);
        assert_eq!(below.level(), Level::Kill);
        assert!(readable(&below, Level::Kill));
    }

    #[test]
    fn dropped_children_are_forgotten() {
        let parent = Cancel::new();
        for _ in 0..10_000 {
            drop(parent.child());
        }
        assert!(parent.0.listeners().children.len() <= 8);
    }

    #[test]
    fn subscribers_hear_of_every_level() {
        let (cancel, heard) = (Cancel::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..2 {
            let heard = Arc::clone(&heard);
            cancel.subscribe(move |level| _ = heard.fetch_add(level as usize, Ordering::SeqCst));
            cancel.raise(Level::Asked);
        }
        assert_eq!(heard.load(Ordering::SeqCst), 2, "the second one was told at once");
        cancel.raise(Level::Kill);
        assert_eq!(heard.load(Ordering::SeqCst), 8);
    }
}
