//! A packet's header, its body and what comes beside it: a message whose parts lie in its body, or an error.

#![no_main]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use ipc_channel_transport::Error;
use ipc_channel_transport::os::descriptor::Leftovers;
use ipc_channel_transport::os::{memory, socket};
use ipc_channel_transport::wire::native::{self, HEADER_LEN, Header, Parts};
use libfuzzer_sys::fuzz_target;

/// At most so many descriptors beside a packet, of kinds that two bits choose.
const DESCRIPTORS: u8 = 8;

fn sealed(content: &[u8]) -> OwnedFd {
    let file = memory::create("fuzz", 0).expect("a memory file");
    memory::write_all(file.as_fd(), &[content]).expect("room");
    assert!(memory::seal_content(file.as_fd()).expect("seals"));
    file
}

fn descriptor(kind: u16, content: &[u8]) -> OwnedFd {
    match kind % 4 {
        0 => socket::duplex_pair().expect("sockets").0,
        1 => sealed(content),
        2 => File::open("/dev/null").expect("/dev/null").into(),
        _ => socket::pair().expect("sockets").1,
    }
}

fn check(parts: &Parts, handles: usize) {
    let len = parts.body.len();
    assert!(parts.payload.start <= parts.payload.end && parts.payload.end <= len);
    let mut end = parts.payload.end;
    for (buffer, _) in &parts.buffers {
        assert!(end <= buffer.start && buffer.start <= buffer.end && buffer.end <= len);
        end = buffer.end;
    }
    assert_eq!(end, len);
    assert_eq!(parts.items.len(), handles);
    let mut bytes = vec![0; len];
    parts.body.copy_out(0, &mut bytes);
}

fuzz_target!(|data: &[u8]| {
    let Some((&[count, low, high], packet)) = data.split_first_chunk::<3>() else {
        return;
    };
    let Ok(header) = Header::read(packet) else {
        return;
    };
    let kinds = u16::from_le_bytes([low, high]);
    let body = &packet[HEADER_LEN..];
    let mut unread = Leftovers::default();
    let fds = (0..count % (DESCRIPTORS + 1)).map(|index| descriptor(kinds >> (2 * index), body));
    unread.begin_message(fds.collect());
    let came = unread.fds.len();
    match native::read_packet(&header, packet, &mut unread) {
        Ok(parts) => {
            let handles = u32::from_le_bytes([packet[8], packet[9], packet[10], packet[11]]);
            check(&parts, handles as usize);
            // Each descriptor has become a part of the message; the body's file is only mapped.
            let extra = parts.items.iter().filter(|item| item.extra.is_some());
            let taken = parts.items.len() + extra.count() + usize::from(parts.seat.is_some());
            assert!(unread.fds.is_empty() && (taken <= came || !unread.chains.is_empty()));
        }
        Err(Error::Protocol(_)) => {}
        Err(other) => panic!("{other:?}"),
    }
});
