//! What a packet looks like.

pub mod control;
pub mod luggage;
pub mod native;
