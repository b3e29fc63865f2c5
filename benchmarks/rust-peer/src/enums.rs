//! Four enums, from a thread to itself, as the crate's own benchmark has them.

use std::sync::Arc;

use ipc_channel::ipc;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::measure::{check, print, seconds_each_alone};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Small {
    Msg0,
    Msg1,
    Msg2(u32, u32),
    Msg3(u32, u32, u32),
    Msg4(String),
    Msg5,
    Msg6,
}

#[rustfmt::skip]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Medium {
    Msg0(u32), Msg1(u32), Msg2(u32), Msg3(u32), Msg4(u32), Msg5(u32), Msg6(u32), Msg7(u32), Msg8(u32),
    Msg9(u32), Msg10(u32), Msg11(u32), Msg12(u32), Msg13(u32), Msg14(u32), Msg15(u32), Msg16(u32), Msg17(u32),
    Msg18(u32), Msg19(u32), Msg20(u32), Msg21(u32), Msg22(u32), Msg23(u32), Msg24(u32), Msg25(u32), Msg26(u32),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Fractured {
    Msg0,
    Msg1(Vec<usize>),
    Msg2(
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
    ),
    Msg3(usize),
    Msg4(usize, usize, usize),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    Msg0,
    Msg1(Small),
    Msg2(Medium),
    Msg3(Fractured),
    Msg4(usize),
}

/// One message after the other of every variant.
pub fn transfer(seconds: f64) -> Result<()> {
    each(
        "small",
        seconds,
        &[
            Small::Msg0,
            Small::Msg1,
            Small::Msg2(23, 42),
            Small::Msg3(23, 42, 243),
            Small::Msg4("This is a test string of medium size".into()),
            Small::Msg5,
            Small::Msg6,
        ],
    )?;
    #[rustfmt::skip]
    each("medium", seconds, &[
        Medium::Msg0(42), Medium::Msg1(42), Medium::Msg2(42), Medium::Msg3(42), Medium::Msg4(42), Medium::Msg5(42),
        Medium::Msg6(42), Medium::Msg7(42), Medium::Msg8(42), Medium::Msg9(42), Medium::Msg10(42), Medium::Msg11(42),
        Medium::Msg12(42), Medium::Msg13(42), Medium::Msg14(42), Medium::Msg15(42), Medium::Msg16(42),
        Medium::Msg17(42), Medium::Msg18(42), Medium::Msg19(42), Medium::Msg20(42), Medium::Msg21(42),
        Medium::Msg22(42), Medium::Msg23(42), Medium::Msg24(42), Medium::Msg25(42), Medium::Msg26(42),
    ])?;
    each(
        "fractured",
        seconds,
        &[
            Fractured::Msg0,
            Fractured::Msg1(vec![1, 2, 3]),
            Fractured::Msg2(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
            Fractured::Msg3(1),
            Fractured::Msg4(1, 2, 3),
        ],
    )?;
    each(
        "nested",
        seconds,
        &[
            Nested::Msg0,
            Nested::Msg1(Small::Msg6),
            Nested::Msg2(Medium::Msg20(2)),
            Nested::Msg3(Fractured::Msg3(0)),
            Nested::Msg4(2),
        ],
    )
}

fn each<T>(name: &str, seconds: f64, messages: &[T]) -> Result<()>
where
    T: Clone + PartialEq + Serialize + for<'de> Deserialize<'de>,
{
    let (sender, receiver) = ipc::channel()?;
    for message in messages {
        sender.send(message.clone())?;
        check(receiver.recv()? == *message, "a message differs")?;
    }
    // Shared messages look the same on their way, and no clone of them is measured.
    let sender = sender.to_opaque().to::<Arc<T>>();
    let messages: Vec<Arc<T>> = messages.iter().cloned().map(Arc::new).collect();
    let mut next = messages.iter().cycle();
    let seconds_each = seconds_each_alone(seconds / 4.0, || {
        if let Some(message) = next.next() {
            sender.send(Arc::clone(message))?;
            receiver.recv()?;
        }
        Ok(())
    })?;
    print(name, seconds_each);
    Ok(())
}
