//! More descriptors than a packet holds: a chain is a socket pair whose queue holds packets of them.
//!
//! Both sockets of a chain ride in the message's own packet, which is sent after the chain is complete.
//! The reading side takes the chain's packets one by one. If it runs out of descriptors it puts back what
//! it took; every packet carries its index, so their order in the queue does not matter, and the message
//! can be read again when there is room.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::error::{Error, Result};
use crate::os::socket::{self, MAX_FDS_A_PACKET, Peeked, Sent};

/// Packets in one chain's queue; a socket holds 278 small ones.
const PACKETS_A_CHAIN: usize = 128;
const FDS_A_CHAIN: usize = PACKETS_A_CHAIN * MAX_FDS_A_PACKET;
/// Chains whose sockets fit one packet beside a memory file.
const MAX_CHAINS: usize = 125;

/// One socket pair.
#[derive(Debug)]
pub struct Chain {
    inlet: OwnedFd,
    outlet: OwnedFd,
}

impl Chain {
    /// The sockets, in the order they travel in.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.outlet.as_fd(), self.inlet.as_fd()]
    }

    fn put(&self, index: usize, fds: &[RawFd]) -> Result<()> {
        let index = (index as u32).to_le_bytes();
        match socket::send(self.inlet.as_fd(), &[IoSlice::new(&index)], fds)? {
            Sent::Whole => Ok(()),
            Sent::WouldBlock => Err(Error::TooManyHandles(
                "the message's descriptors do not fit the kernel's socket buffers".into(),
            )),
        }
    }
}

/// Puts `fds` into as many chains as they need.
pub fn write(fds: &[RawFd]) -> Result<Vec<Chain>> {
    if fds.len() > MAX_CHAINS * FDS_A_CHAIN {
        return Err(Error::TooManyHandles(format!(
            "a message carries at most {} handles, and this one has {}",
            MAX_CHAINS * FDS_A_CHAIN,
            fds.len()
        )));
    }
    fds.chunks(FDS_A_CHAIN)
        .map(|share| {
            let (inlet, outlet) = socket::pair()?;
            let chain = Chain { inlet, outlet };
            for (index, packet) in share.chunks(MAX_FDS_A_PACKET).enumerate() {
                chain.put(index, packet)?;
            }
            Ok(chain)
        })
        .collect()
}

/// Takes `count` descriptors out of chains whose sockets are `sockets`.
///
/// [`Error::Protocol`] if the chains do not hold exactly those; after [`Error::TooManyHandles`] they are
/// as before.
pub fn read(sockets: Vec<OwnedFd>, chains: usize, count: usize) -> Result<Vec<OwnedFd>> {
    if chains > MAX_CHAINS || sockets.len() != chains * 2 || count.div_ceil(FDS_A_CHAIN) != chains {
        return Err(Error::Protocol(
            "a packet from the peer carries another number of descriptor chains than it says"
                .into(),
        ));
    }
    let mut sockets = sockets.into_iter();
    let mut read: Vec<(Chain, Vec<Vec<OwnedFd>>)> = Vec::with_capacity(chains);
    while let (Some(outlet), Some(inlet)) = (sockets.next(), sockets.next()) {
        let left = count - read.len() * FDS_A_CHAIN;
        let chain = Chain { inlet, outlet };
        match take(&chain, left.min(FDS_A_CHAIN)) {
            Ok(packets) => read.push((chain, packets)),
            Err(e @ Error::TooManyHandles(_)) => {
                for (chain, packets) in read {
                    put_back(&chain, packets.into_iter().enumerate())?;
                }
                return Err(e);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(read
        .into_iter()
        .flat_map(|(_, packets)| packets)
        .flatten()
        .collect())
}

fn take(chain: &Chain, count: usize) -> Result<Vec<Vec<OwnedFd>>> {
    let wrong = || Error::Protocol("a descriptor chain from the peer is damaged".into());
    crate::os::descriptor::check_channel_socket(chain.outlet.as_fd())?;
    crate::os::descriptor::check_channel_socket(chain.inlet.as_fd())?;
    let packets = count.div_ceil(MAX_FDS_A_PACKET);
    let mut taken: Vec<Option<Vec<OwnedFd>>> = Vec::new();
    taken.resize_with(packets, || None);
    for _ in 0..packets {
        let mut index = [0u8; 4];
        match socket::peek(chain.outlet.as_fd(), &mut index)? {
            Peeked::Packet {
                fds,
                fds_missing: true,
                ..
            } => {
                drop(fds);
                let packets = taken.into_iter().enumerate();
                put_back(chain, packets.filter_map(|(at, fds)| Some((at, fds?))))?;
                return Err(Error::TooManyHandles(format!(
                    "the message carries {count} descriptors, more than this process may still open; \
                     close some or raise the limit (ulimit -n), then receive it again"
                )));
            }
            Peeked::Packet { len: 4, fds, .. } => {
                socket::discard(chain.outlet.as_fd())?;
                let index = u32::from_le_bytes(index) as usize;
                let expected =
                    (count - (index * MAX_FDS_A_PACKET).min(count)).min(MAX_FDS_A_PACKET);
                let place = taken.get_mut(index).ok_or_else(wrong)?;
                if place.is_some() || fds.len() != expected {
                    crate::os::descriptor::close_unknown(fds);
                    return Err(wrong());
                }
                *place = Some(fds);
            }
            _ => return Err(wrong()),
        }
    }
    taken.into_iter().collect::<Option<_>>().ok_or_else(wrong)
}

fn put_back(chain: &Chain, packets: impl Iterator<Item = (usize, Vec<OwnedFd>)>) -> Result<()> {
    for (index, fds) in packets {
        let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        chain.put(index, &raw).map_err(|e| {
            Error::Protocol(format!(
                "a message with many descriptors is lost: this process ran out of descriptors \
                 while taking them, and could not put them back ({e})"
            ))
        })?;
    }
    Ok(())
}
