//! The sizes of a lane for the model checker: a few messages fill a ring. See `../sizes.rs`.
//!
//! What the code takes for granted of the shipped sizes holds for these: a ring is at least four times as
//! long as a record, and a quarter of the first ring holds a SWITCH.

/// Rings begin and end at multiples of it.
pub const PAGE: usize = 64;
/// Bytes before the first ring.
pub const HEADER_LEN: usize = 320;
/// A message of one unit less than a quarter of the first ring counts as long, but needs no padding.
pub const ALIGNED_FROM: usize = 64;

/// Three of the models' messages and a SWITCH.
pub const FIRST_RING: usize = 256;
/// One message and a SWITCH.
pub const SMALLEST_OVERFLOW: usize = 128;
/// Three messages and a SWITCH.
pub const LARGEST_OVERFLOW: usize = 256;
/// One page at a time.
pub const CHUNK: usize = 64;
/// The same.
pub const SMALLEST_CHUNK: usize = 64;
/// The models' long messages are large, the others are not.
pub const LARGE_FROM: usize = 100;
/// Enough for one message to follow another at a ring's start.
pub const SLIDE: usize = 16;
/// One look at the consumer's progress and another, see `os/modelled/clock.rs`.
pub const PATIENCE_NS: u64 = 0;
/// Neither.
pub const MOST_PATIENCE_NS: u64 = 0;
