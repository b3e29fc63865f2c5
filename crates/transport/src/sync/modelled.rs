//! The model checker's mutex, made at its first use: it cannot be made in a static.

use std::sync::{LockResult, OnceLock};

pub use loom::sync::MutexGuard;

/// A mutex.
#[derive(Debug)]
pub struct Mutex<T> {
    value: std::sync::Mutex<Option<T>>,
    made: OnceLock<loom::sync::Mutex<T>>,
}

impl<T> Mutex<T> {
    /// Around `value`.
    pub const fn new(value: T) -> Self {
        Mutex {
            value: std::sync::Mutex::new(Some(value)),
            made: OnceLock::new(),
        }
    }

    /// Waits for it.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let made = self.made.get_or_init(|| {
            let value = self.value.lock().ok().and_then(|mut value| value.take());
            loom::sync::Mutex::new(value.unwrap_or_else(|| unreachable!("the value is taken once")))
        });
        made.lock()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}
