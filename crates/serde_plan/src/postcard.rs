//! The format of the crate `postcard`, 1.x: variable-length integers.

use crate::format::{Format, Input, Malformed};

/// Seven bits a byte, the lowest first, the eighth bit on all but the last; signed numbers are zigzagged before.
pub struct Postcard;

const TOO_LONG: Malformed = "a number has more bits than its type";
const NO_CHAR: Malformed = "a char is not UTF-8";

macro_rules! varints {
    ($($put:ident $read:ident $unsigned:ty, $put_signed:ident $read_signed:ident $signed:ty;)*) => {$(
        #[inline]
        fn $put(out: &mut Vec<u8>, mut value: $unsigned) {
            while value >= 0x80 {
                out.push(value as u8 | 0x80);
                value >>= 7;
            }
            out.push(value as u8);
        }

        // Bytes that add nothing, as in 0x80 0x00 for zero, are accepted: the crate does so too.
        #[inline]
        fn $read(input: &mut Input<'_>) -> Result<$unsigned, Malformed> {
            const LONGEST: u32 = <$unsigned>::BITS.div_ceil(7);
            // The last byte of the longest has only as many bits as are left.
            const MOST_IN_LAST: u8 = (1 << (<$unsigned>::BITS % 7)) - 1;
            let mut value: $unsigned = 0;
            for number in 0..LONGEST {
                let byte = input.byte()?;
                value |= <$unsigned>::from(byte & 0x7f) << (7 * number);
                if byte < 0x80 {
                    if number == LONGEST - 1 && byte > MOST_IN_LAST {
                        return Err(TOO_LONG);
                    }
                    return Ok(value);
                }
            }
            Err(TOO_LONG)
        }

        #[inline]
        fn $put_signed(out: &mut Vec<u8>, value: $signed) {
            Self::$put(out, ((value << 1) ^ (value >> (<$signed>::BITS - 1))) as $unsigned);
        }

        #[inline]
        fn $read_signed(input: &mut Input<'_>) -> Result<$signed, Malformed> {
            let value = Self::$read(input)?;
            Ok((value >> 1) as $signed ^ -((value & 1) as $signed))
        }
    )*};
}

impl Format for Postcard {
    fn least(_bits: u32) -> usize {
        1
    }

    // A length and at least one byte.
    const LEAST_CHAR: usize = 2;

    varints! {
        put_u16 u16 u16, put_i16 i16 i16;
        put_u32 u32 u32, put_i32 i32 i32;
        put_u64 u64 u64, put_i64 i64 i64;
        put_u128 u128 u128, put_i128 i128 i128;
    }

    // As a string.
    fn put_char(out: &mut Vec<u8>, value: char) {
        let mut bytes = [0; 4];
        let text = value.encode_utf8(&mut bytes);
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    }

    // More than one character in these bytes is accepted, and the first one counts: the crate does so too.
    fn char(input: &mut Input<'_>) -> Result<char, Malformed> {
        let len = Self::u64(input)?;
        if len > 4 {
            return Err(NO_CHAR);
        }
        let text = str::from_utf8(input.take(len as usize)?).map_err(|_| NO_CHAR)?;
        text.chars().next().ok_or(NO_CHAR)
    }
}
