//! A connection of one sending process, and its lane.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fd_link::LinkReader;
use crate::intake::{LARGE, Plain, Taken};
use crate::lane::consumer::{Consumer, Record};
use crate::lane::layout::Kind;
use crate::message::{Body, Message, Placed};
use crate::os::descriptor::Leftovers;
use crate::wire::control;
use crate::wire::native::{self, HEADER_LEN, Header, forged};

#[derive(Debug)]
pub(super) struct Source {
    pub(super) connection: Arc<OwnedFd>,
    /// Nothing comes by the connection any more.
    pub(super) ended: bool,
    pub(super) lane: Option<Consumer>,
    pub(super) link: Option<LinkReader>,
    /// Its next message is among the heads.
    pub(super) queued: bool,
    /// Its lane is looked at each time, because its producer will not ring.
    pub(super) awake: bool,
    /// The producer waits for room and has not been rung for yet.
    pub(super) owed: bool,
    /// How far the lane was at the last look, or when it was found since: what lies beyond was not there.
    pub(super) seen: u64,
    /// Packets taken from the connection since the last look.
    pub(super) since: u32,
}

impl Source {
    pub(super) fn into_unknown(self) -> Vec<OwnedFd> {
        let link = self.link.map(LinkReader::into_socket);
        Arc::into_inner(self.connection)
            .into_iter()
            .chain(link)
            .collect()
    }
}

impl Source {
    pub(super) fn new(connection: OwnedFd) -> Source {
        Source {
            connection: Arc::new(connection),
            ended: false,
            lane: None,
            link: None,
            queued: false,
            awake: false,
            owed: false,
            seen: 0,
            since: 0,
        }
    }

    /// From now on its messages come by this lane. What is there belongs to the batch in which it was found, and what
    /// comes later does not, as with all others.
    pub(super) fn set_lane(&mut self, mut lane: Consumer) {
        lane.has_news();
        self.seen = lane.seen();
        self.lane = Some(lane);
    }

    /// Rings for a producer that waits for room; later, if the kernel has no memory for it now.
    #[inline]
    pub(super) fn ring(&mut self) {
        if self.owed {
            let rung = control::ring(self.connection.as_fd());
            self.owed = !matches!(rung, Ok(()) | Err(Error::ReceiverGone));
        }
    }

    /// Gives a record of the lane to `deliver`, and takes it unless that fails.
    #[inline]
    pub(super) fn deliver<R>(
        &mut self,
        record: &Record,
        deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
        leftovers: &mut Leftovers,
    ) -> Result<R> {
        let Some(lane) = &mut self.lane else {
            return Err(Error::Empty);
        };
        let outcome = match record.kind {
            Kind::Plain => {
                if record.len >= LARGE && !lane.is_whole(record) {
                    forged("has a body that its sender has no memory for")
                } else {
                    deliver(Taken::Plain(Plain {
                        consumer: lane,
                        record: *record,
                    }))
                }
            }
            _ => framed(lane, &mut self.link, record, leftovers)
                .and_then(|message| deliver(Taken::Message(message))),
        };
        if matches!(outcome, Ok(_) | Err(Error::Protocol(_))) {
            self.owed |= lane.take(record);
            self.ring();
        }
        outcome
    }
}

/// Reads a message with more than a payload out of a lane.
pub(super) fn framed(
    lane: &Consumer,
    link: &mut Option<LinkReader>,
    record: &Record,
    leftovers: &mut Leftovers,
) -> Result<Message> {
    if record.len < HEADER_LEN {
        return forged("is shorter than a header");
    }
    let mut beginning = [0; HEADER_LEN];
    lane.copy_out(record, &mut beginning);
    let header = Header::read(&beginning)?;
    if header.body_len() != record.len - HEADER_LEN || !header.fits_a_lane() {
        return forged("is not what it says");
    }
    if record.len >= LARGE && !lane.is_whole(record) {
        return forged("has a body that its sender has no memory for");
    }
    leftovers.begin_message(Vec::new());
    let mut tables = vec![0; header.tables_len()?];
    lane.copy_out_from(record, HEADER_LEN, &mut tables);
    if header.ticket > 0 {
        let Some(link) = link else {
            return forged("says that descriptors come with it, and none do");
        };
        leftovers.begin_message(link.peek(header.ticket)?);
    }
    let body = if header.body_len() < LARGE {
        let mut bytes = vec![0; header.body_len()];
        lane.copy_out_from(record, HEADER_LEN, &mut bytes);
        Body::Inline(bytes)
    } else {
        let hold = lane.hold(record, HEADER_LEN);
        Body::Placed(Arc::new(Placed::Lane(hold)))
    };
    let message = native::read_body(&header, &tables, body, leftovers).and_then(Message::assemble);
    match (&message, link) {
        (Ok(_) | Err(Error::Protocol(_)), Some(link)) if header.ticket > 0 => link.discard()?,
        _ => {}
    }
    message
}
