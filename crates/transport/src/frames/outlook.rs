//! What is known of the packets that come next, so that they need not be looked at one by one.
//!
//! A packet that is taken while the process is at its limit on open files loses its descriptors. So each packet is looked
//! at before it is taken, which costs two thirds of what taking it does. But if nothing in the queue has descriptors, all of
//! it can be taken at once, packet by packet. To find that out is worth it if there are many.
//!
//! # Why that is true
//! Packets leave a queue in the order in which they came. Of `bytes` that were in it when it had no descriptors, so many
//! are left as have not been taken; and as long as some are left, the first packet is one of them. Only another process
//! that takes packets from the same queue can make it untrue, and that is seen.

use std::os::fd::BorrowedFd;

use crate::os::in_flight::{self, Account};

/// Messages that must have been there, each after the other, before it is worth to ask.
const PATIENCE: u32 = 8;
/// The same after descriptors were found in the queue.
const LONG_PATIENCE: u32 = 64;
/// So many messages must be in the queue.
const WORTH_IT: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Outlook {
    /// So many bytes at the head of the queue have no descriptors beside them.
    plain: usize,
    /// Messages until it is asked.
    patience: u32,
    /// The length of the last packet.
    last: usize,
    /// Kept as long as it is known what comes next.
    account: Account,
}

impl Default for Outlook {
    fn default() -> Outlook {
        Outlook {
            plain: 0,
            patience: PATIENCE,
            last: 0,
            account: Account::default(),
        }
    }
}

impl Outlook {
    /// Whether the first packet has certainly no descriptors beside it, and is not longer than `most`.
    pub fn is_clear(&mut self, socket: BorrowedFd<'_>, most: usize) -> bool {
        if self.plain == 0 && self.patience == 0 {
            self.ask(socket, most);
        }
        self.plain > 0
    }

    fn ask(&mut self, socket: BorrowedFd<'_>, most: usize) {
        // In this order: see `in_flight`.
        let bytes = in_flight::bytes(socket);
        if bytes > most || bytes < self.last.max(1) * WORTH_IT {
            self.patience = PATIENCE;
        } else if self.account.has_no_descriptors(socket) {
            self.plain = bytes;
            return;
        } else {
            self.patience = LONG_PATIENCE;
        }
        // What comes next may need the last descriptor that this process can have, or nothing comes for long.
        self.account = Account::default();
    }

    /// A packet of that length has been taken. What is known of the next ones is not longer than `most`.
    pub fn took(&mut self, len: usize, socket: BorrowedFd<'_>, most: usize) {
        self.plain = self.plain.saturating_sub(len);
        self.patience = self.patience.saturating_sub(1);
        self.last = len;
        if self.plain == 0 && self.account.is_kept() {
            self.ask(socket, most);
        }
    }

    /// The queue is empty, or somebody else may have taken something from it.
    pub fn forget(&mut self) {
        *self = Outlook::default();
    }
}
