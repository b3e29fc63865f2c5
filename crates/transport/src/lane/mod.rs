//! A lane: the messages of one sending process to one receiver, in shared memory.
//!
//! One process writes (a [`Producer`]), one reads (a [`Consumer`]). Everything lies in one memory file that
//! only grows: a page of words, then rings. The producer begins with a small ring that is used over and
//! over. When it is full it goes on in a larger one further up in the file, used once and then given back,
//! and returns when the consumer has caught up; so a send never waits. A SWITCH record points from one ring
//! to the next. Who owns which pages of a ring that is used once is said at [`hold::RingMemory`].
//!
//! # Publication, and why nobody sleeps through it
//! `TAIL` counts published bytes, a multiple of [`UNIT`], over all rings; its low bits are flags. The producer
//! writes records beyond the tail and publishes them with one `fetch_add`. The value that returns carries the
//! flags as they were at that very instant, so:
//! - The consumer sets WAITING with one `fetch_or` before it sleeps, and sleeps only if the value that returns
//!   shows no news. Both are read-modify-writes of one word, so one comes first: either the publication,
//!   and the consumer sees it; or the flag, and the producer sees it and rings.
//! - The producer clears WAITING before it rings. (The other way round, a consumer that was woken by the bell
//!   and went to sleep again could have its new flag cleared.)
//! - A record published after CLOSED is known to its producer not to be taken.
//!
//! Adding multiples of [`UNIT`] neither touches nor is touched by bits that are only ored and anded. Both
//! sides keep their own cursors in private memory and believe the shared words only after a check.
//!
//! # Order against everything else
//! Every record has a stamp, see [`crate::intake`]. While the producer's process has never shared its sending
//! end, it stamps nothing (its lane's first stamp counts for all): there is no message elsewhere that could
//! come between. Before another process gets a way to send, SHARED is set in the tail, so whoever sees a
//! record published after that sees SHARED too, and looks at all sources.

pub mod budget;
pub mod consumer;
pub mod hold;
pub mod layout;
pub mod producer;
#[cfg_attr(loom, path = "modelled/sizes.rs")]
pub mod sizes;

#[cfg(all(loom, test))]
mod loom_models;

pub use consumer::{Consumer, Record};
pub use hold::Hold;
pub use producer::Producer;
