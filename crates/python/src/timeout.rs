//! Timeouts as Python gives them, and waits that Ctrl-C interrupts.

use std::time::Duration;

use ipc_channel_transport::spin::Call;
use ipc_channel_transport::{Deadline, Error};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A timeout in seconds: None and infinity wait without end, zero does not wait.
pub fn deadline(timeout: Option<f64>) -> PyResult<Deadline> {
    match timeout {
        None => Ok(Deadline::NEVER),
        Some(seconds) if seconds.is_nan() || seconds < 0.0 => Err(PyValueError::new_err(format!(
            "timeout must be None or a number of seconds that is not negative, not {seconds}"
        ))),
        Some(seconds) => {
            Ok(Duration::try_from_secs_f64(seconds).map_or(Deadline::NEVER, Deadline::after))
        }
    }
}

/// What a long loop does now and then: Python's signal handlers run, and then other threads.
pub fn pause(py: Python<'_>) -> PyResult<()> {
    py.check_signals()?;
    // Another thread that asks for the GIL gets it now.
    py.detach(|| ());
    Ok(())
}

/// Runs a wait without the GIL, and Python's signal handlers whenever a signal ends it.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    wait: impl Fn() -> Result<T, Error> + Sync + Send,
) -> PyResult<Result<T, Error>> {
    let _call = Call::begin();
    loop {
        match py.detach(&wait) {
            Err(Error::Interrupted) => py.check_signals()?,
            outcome => return Ok(outcome),
        }
    }
}
