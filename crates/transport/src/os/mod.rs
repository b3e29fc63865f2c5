//! Every system call, a file per kernel object. What is Linux-only stays behind these functions.

pub mod descriptor;
pub mod fork;
pub mod memory;
pub mod poll;
pub mod process;
pub mod socket;
