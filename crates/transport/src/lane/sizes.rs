//! How large the parts of a lane are. The model checker uses smaller ones, in `modelled/sizes.rs`.

/// Rings begin and end at multiples of it.
pub const PAGE: usize = 4096;
/// Bytes before the first ring.
pub const HEADER_LEN: usize = 4096;
/// Bodies from this length on are aligned.
pub const ALIGNED_FROM: usize = 4096;

/// The first ring: large enough that a consumer which is scheduled away for a moment does not overflow it,
/// small enough to stay in a core's cache.
pub const FIRST_RING: usize = 512 << 10;
/// The first ring used once; each further one is twice as large.
pub const SMALLEST_OVERFLOW: usize = 4 << 20;
/// Up to this.
pub const LARGEST_OVERFLOW: usize = 64 << 20;
/// Pages are made in steps of this size.
pub const CHUNK: usize = 2 << 20;
/// And at first of this.
pub const SMALLEST_CHUNK: usize = 64 << 10;
/// Records from this length on are large: it pays to wait for pages that are there already.
pub const LARGE_FROM: usize = 64 << 10;
/// What is left free before a large message at a ring's start, so that the next one can go there too: it must end
/// before the SKIP that leads to it, behind the first one. Each such message takes some of it.
pub const SLIDE: usize = 64 << 10;
/// How long a full ring is given to a consumer that is draining it.
pub const PATIENCE_NS: u64 = 50_000;
/// What is added to it for a large message, at most.
pub const MOST_PATIENCE_NS: u64 = 20_000_000;
