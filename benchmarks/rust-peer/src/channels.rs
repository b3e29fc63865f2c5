//! Making a channel.

use ipc_channel::ipc;

use crate::Result;
use crate::measure::{check, print, seconds_each_alone};

/// Makes a channel and drops both of its ends.
pub fn create(seconds: f64) -> Result<()> {
    let (sender, receiver) = ipc::channel::<i64>()?;
    sender.send(42)?;
    check(receiver.recv()? == 42, "the message differs")?;
    let each = seconds_each_alone(seconds, || {
        ipc::channel::<i64>()?;
        Ok(())
    })?;
    print("", each);
    Ok(())
}
