//! The four enums of the crate's own benchmark.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub enum Small {
    Msg0,
    Msg1,
    Msg2(u32, u32),
    Msg3(u32, u32, u32),
    Msg4(String),
    Msg5,
    Msg6,
}

#[rustfmt::skip]
#[derive(Serialize, Deserialize)]
pub enum Medium {
    Msg0(u32), Msg1(u32), Msg2(u32), Msg3(u32), Msg4(u32), Msg5(u32), Msg6(u32), Msg7(u32), Msg8(u32),
    Msg9(u32), Msg10(u32), Msg11(u32), Msg12(u32), Msg13(u32), Msg14(u32), Msg15(u32), Msg16(u32), Msg17(u32),
    Msg18(u32), Msg19(u32), Msg20(u32), Msg21(u32), Msg22(u32), Msg23(u32), Msg24(u32), Msg25(u32), Msg26(u32),
}

#[rustfmt::skip]
#[derive(Serialize, Deserialize)]
pub enum Fractured {
    Msg0,
    Msg1(Vec<usize>),
    Msg2(usize, usize, usize, usize, usize, usize, usize, usize, usize, usize),
    Msg3(usize),
    Msg4(usize, usize, usize),
}

#[derive(Serialize, Deserialize)]
pub enum Nested {
    Msg0,
    Msg1(Small),
    Msg2(Medium),
    Msg3(Fractured),
    Msg4(usize),
}
