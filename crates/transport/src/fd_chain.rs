//! More descriptors than a packet holds: a chain is a socket whose queue holds packets of them.
//!
//! A chain rides in the message's own packet, which is sent after the chain is complete. The reading side
//! looks at the chain's packets without taking any, so a message whose descriptors cannot all be had stays
//! whole, and can be read again when there is room.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use crate::error::{Error, Result};
use crate::os::descriptor;
use crate::os::socket::{self, MAX_FDS_A_PACKET, Peeked, Sent};

/// Packets in one chain's queue; a socket holds 278 small ones.
const PACKETS_A_CHAIN: usize = 128;
const FDS_A_CHAIN: usize = PACKETS_A_CHAIN * MAX_FDS_A_PACKET;
/// Chains whose sockets fit one packet beside a memory file.
const MAX_CHAINS: usize = 250;

/// Puts `fds` into as many chains as they need.
pub fn write(fds: &[RawFd]) -> Result<Vec<OwnedFd>> {
    if fds.len() > MAX_CHAINS * FDS_A_CHAIN {
        return Err(Error::TooManyHandles(format!(
            "a message carries at most {} handles, and this one has {}",
            MAX_CHAINS * FDS_A_CHAIN,
            fds.len()
        )));
    }
    fds.chunks(FDS_A_CHAIN).map(write_one).collect()
}

fn write_one(fds: &[RawFd]) -> Result<OwnedFd> {
    let (inlet, chain) = socket::pair()?;
    for (index, packet) in fds.chunks(MAX_FDS_A_PACKET).enumerate() {
        let index = (index as u32).to_le_bytes();
        match socket::send(inlet.as_fd(), &[IoSlice::new(&index)], packet)? {
            Sent::Whole => {}
            Sent::WouldBlock => {
                return Err(Error::TooManyHandles(
                    "the message's descriptors do not fit the kernel's socket buffers".into(),
                ));
            }
        }
    }
    Ok(chain)
}

/// Adds duplicates of the `count` descriptors in `chains` to `fds`, or some of them and an error:
/// [`Error::Protocol`] if the chains do not hold exactly those. The chains are left as they are.
pub fn read(
    sockets: &[OwnedFd],
    chains: usize,
    count: usize,
    fds: &mut Vec<OwnedFd>,
) -> Result<()> {
    if chains > MAX_CHAINS || sockets.len() != chains || count.div_ceil(FDS_A_CHAIN) != chains {
        return Err(Error::Protocol(
            "a packet from the peer carries another number of descriptor chains than it says"
                .into(),
        ));
    }
    for chain in sockets {
        let share = (count - fds.len()).min(FDS_A_CHAIN);
        match read_one(chain.as_fd(), share, fds) {
            Ok(()) => {}
            Err(Error::TooManyHandles(_)) => {
                return Err(Error::TooManyHandles(format!(
                    "the message carries {count} descriptors, more than this process may still open; \
                     close some or raise the limit (ulimit -n), then receive it again"
                )));
            }
            // Whatever the kernel says about a socket of the peer's making is the peer's doing.
            Err(_) => return Err(damaged()),
        }
    }
    Ok(())
}

fn read_one(chain: BorrowedFd<'_>, share: usize, fds: &mut Vec<OwnedFd>) -> Result<()> {
    descriptor::check_channel_socket(chain)?;
    socket::peek_one_after_the_other(chain)?;
    for index in 0..share.div_ceil(MAX_FDS_A_PACKET) {
        let expected = (share - index * MAX_FDS_A_PACKET).min(MAX_FDS_A_PACKET);
        let mut number = [0u8; 4];
        let Peeked::Packet {
            len,
            fds: mut came,
            fds_missing,
        } = socket::peek(chain, &mut number)?
        else {
            return Err(damaged());
        };
        let whole = came.len() == expected;
        fds.append(&mut came);
        if fds_missing {
            return Err(Error::TooManyHandles(String::new()));
        }
        if len != number.len() || u32::from_le_bytes(number) as usize != index || !whole {
            return Err(damaged());
        }
    }
    Ok(())
}

fn damaged() -> Error {
    Error::Protocol("a descriptor chain from the peer is damaged".into())
}
