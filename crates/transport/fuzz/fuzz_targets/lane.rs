//! A lane's memory full of anything: every record lies in its ring and is taken once, or the lane is damaged.

#![no_main]

use std::os::fd::AsFd;

use ipc_channel_transport::lane::consumer::{Consumer, Place};
use ipc_channel_transport::lane::layout::{HEADER_LEN, Kind, PAGE, TAIL, UNIT};
use ipc_channel_transport::os::shared::Region;
use ipc_channel_transport::os::{descriptor, memory};
use ipc_channel_transport::wire::native::Header;
use libfuzzer_sys::fuzz_target;

const RING: usize = 4 * PAGE;
const RINGS: usize = 2;
const FILE_LEN: usize = HEADER_LEN + RINGS * RING;
/// A record takes sixteen bytes at least.
const MOST_RECORDS: usize = 1 + RINGS * RING / 16;

/// Where reading begins: as an honest sender says it, or as the data wants.
fn place(bytes: &[u8; 25]) -> Place {
    let flags = bytes[0];
    let word = |index: usize| {
        let word = bytes[1 + 8 * index..].first_chunk();
        u64::from_le_bytes(*word.expect("three words"))
    };
    let honest = Place {
        offset: HEADER_LEN as u64,
        len: RING as u64,
        start: 0,
        read: 0,
        taken: 0,
        base: 0,
        bounded: flags & 1 != 0,
        pinned: flags & 2 != 0,
    };
    if flags & 4 == 0 {
        return honest;
    }
    Place {
        start: word(0),
        read: word(1),
        base: word(2),
        ..honest
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((beginning, data)) = data.split_first_chunk::<25>() else {
        return;
    };
    let Some((tail, content)) = data.split_first_chunk::<8>() else {
        return;
    };
    let place = place(beginning);
    let file = memory::create_growing("fuzz").expect("a memory file");
    memory::grow(file.as_fd(), FILE_LEN as u64).expect("a longer file");
    let region = Region::map(file.as_fd(), 0, FILE_LEN).expect("a mapping");
    // The second ring begins with what the first has in its middle.
    let content = &content[..content.len().min(RING)];
    region.copy_in(HEADER_LEN, content);
    region.copy_in(HEADER_LEN + RING, &content[content.len() / 2..]);
    region.copy_in(TAIL, tail);

    let copy = descriptor::duplicate(file.as_fd()).expect("a descriptor");
    let Ok(mut lane) = Consumer::new(copy, place) else {
        return;
    };
    let mut held = Vec::new();
    for _ in 0..MOST_RECORDS {
        let before = lane.position();
        let Ok(Some(record)) = lane.peek() else {
            break;
        };
        let mut bytes = vec![0; record.len];
        lane.copy_out(&record, &mut bytes);
        if record.kind == Kind::Framed {
            let _ = Header::read(&bytes);
        }
        let _ = lane.is_whole(&record);
        if beginning[0] & 8 != 0 && held.len() < 8 {
            held.push(lane.hold(&record, record.len / 2));
        }
        let _ = lane.take(&record);
        let after = lane.position();
        assert!(after > before && after.is_multiple_of(UNIT));
        assert!(after <= lane.seen(), "read beyond what was published");
    }
    let _ = lane.arm();
    let _ = lane.depart();
    lane.close();
});
