//! What a packet looks like.

pub mod native;
