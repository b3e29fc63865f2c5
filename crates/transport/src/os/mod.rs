//! Every system call, a file per kernel object. What is Linux-only stays behind these functions.
//!
//! The files of `modelled` take the place of two of them when a model checker runs the lane's code.

#[cfg_attr(loom, path = "modelled/clock.rs")]
pub mod clock;
pub mod descriptor;
pub mod fork;
pub mod in_flight;
pub mod memory;
pub mod place;
pub mod poll;
pub mod process;
#[cfg_attr(loom, path = "modelled/shared.rs")]
pub mod shared;
pub mod socket;
pub mod system;
