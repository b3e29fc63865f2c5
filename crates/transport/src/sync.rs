//! Locks that no fork can leave behind locked, and the place where all of a lane's atomics come from.
//!
//! Invariant: a thread that holds a [`Lock`] is inside the gate, and a fork happens only while no thread
//! is inside (its prepare handler closes the gate and the handlers of parent and child open it again).
//! So in the child every lock is free and what it guards is whole. No lock is held while waiting, while
//! the GIL is taken, or while foreign code runs, so closing the gate takes microseconds.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

// Under `--cfg loom` a model checker runs the same code, and sees every access to these.
#[cfg(loom)]
mod modelled;
#[cfg(loom)]
pub use loom::sync::{Arc, atomic};
#[cfg(loom)]
use modelled::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub use std::sync::{Arc, atomic};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

use crate::os::fork::{self, Gate};

/// A mutex that is never held across a fork.
#[derive(Debug, Default)]
pub struct Lock<T>(Mutex<T>);

/// Access to what a [`Lock`] guards. The fields are dropped in order: the mutex first, then the gate.
#[derive(Debug)]
pub struct Locked<'a, T> {
    value: MutexGuard<'a, T>,
    _gate: Gate,
}

impl<T> Lock<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Lock(Mutex::new(value))
    }

    /// Waits for other threads' short critical sections. A panic in one of them does not poison it:
    /// every section leaves the value whole before it can panic.
    pub fn lock(&self) -> Locked<'_, T> {
        let gate = fork::enter();
        Locked {
            value: self.0.lock().unwrap_or_else(PoisonError::into_inner),
            _gate: gate,
        }
    }
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
