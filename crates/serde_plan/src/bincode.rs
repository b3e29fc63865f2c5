//! The format of the crate `bincode`, 1.x, as its plain functions `serialize` and `deserialize` have it.

use crate::format::{Format, Input, Malformed};

/// Every number in its full width, little-endian; lengths are `u64`, indices of variants `u32`.
pub struct Bincode;

const NO_CHAR: Malformed = "a char is not UTF-8";

macro_rules! fixed {
    ($($put:ident $read:ident $number:ty;)*) => {$(
        #[inline]
        fn $put(out: &mut Vec<u8>, value: $number) {
            out.extend_from_slice(&value.to_le_bytes());
        }

        #[inline]
        fn $read(input: &mut Input<'_>) -> Result<$number, Malformed> {
            input.array().map(<$number>::from_le_bytes)
        }
    )*};
}

impl Format for Bincode {
    fn least(bits: u32) -> usize {
        bits.div_ceil(8) as usize
    }

    const LEAST_CHAR: usize = 1;

    fixed! {
        put_u16 u16 u16;
        put_u32 u32 u32;
        put_u64 u64 u64;
        put_u128 u128 u128;
        put_i16 i16 i16;
        put_i32 i32 i32;
        put_i64 i64 i64;
        put_i128 i128 i128;
    }

    // UTF-8 without a length: its first byte tells.
    fn put_char(out: &mut Vec<u8>, value: char) {
        out.extend_from_slice(value.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn char(input: &mut Input<'_>) -> Result<char, Malformed> {
        let first = input.byte()?;
        let mut bytes = [first, 0, 0, 0];
        let len = match first {
            0x00..=0x7f => 1,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return Err(NO_CHAR),
        };
        bytes[1..len].copy_from_slice(input.take(len - 1)?);
        let text = str::from_utf8(&bytes[..len]).map_err(|_| NO_CHAR)?;
        text.chars().next().ok_or(NO_CHAR)
    }
}
