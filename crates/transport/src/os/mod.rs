//! Every system call, a file per kernel object. What is Linux-only stays behind these functions.

pub mod clock;
pub mod descriptor;
pub mod fork;
pub mod memory;
pub mod place;
pub mod poll;
pub mod process;
pub mod shared;
pub mod socket;
pub mod system;
