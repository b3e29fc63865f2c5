//! Where the versions of the crate differ: the names of errors.

#[cfg(feature = "errors-in-ipc")]
pub use ipc_channel::ipc::IpcError;

#[cfg(not(feature = "errors-in-ipc"))]
pub use ipc_channel::IpcError;

/// Whether it says that no sender is left.
pub fn is_the_end(error: &IpcError) -> bool {
    matches!(error, IpcError::Disconnected)
}

/// An end of a stream in words, for comparison.
pub fn describe(error: &IpcError) -> String {
    if is_the_end(error) {
        "disconnected".to_owned()
    } else {
        format!("{error:?}")
    }
}
