//! What a format has to say: how numbers become bytes. Everything else follows from the plan.

/// Why bytes cannot be read.
pub type Malformed = &'static str;

pub(crate) const ENDED: Malformed = "the message ends in the middle of a value";

/// Bytes that are being read, from the front.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    /// How many bytes are left.
    #[inline]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(ENDED)?;
        self.rest = rest;
        Ok(*first)
    }

    /// The next `len` bytes, where they lie.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ENDED)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ENDED)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// How one of serde's formats writes and reads numbers. `u8`, `i8` and `bool` are one byte in all of them,
/// floats their little-endian bits.
pub trait Format {
    /// How many bytes a number of that many bits takes at least.
    fn least(bits: u32) -> usize;

    /// How many bytes a `char` takes at least.
    const LEAST_CHAR: usize;

    /// Appends a `u16`.
    fn put_u16(out: &mut Vec<u8>, value: u16);
    /// Appends a `u32`; also the index of an enum's variant.
    fn put_u32(out: &mut Vec<u8>, value: u32);
    /// Appends a `u64`; also a length.
    fn put_u64(out: &mut Vec<u8>, value: u64);
    /// Appends a `u128`.
    fn put_u128(out: &mut Vec<u8>, value: u128);
    /// Appends an `i16`.
    fn put_i16(out: &mut Vec<u8>, value: i16);
    /// Appends an `i32`.
    fn put_i32(out: &mut Vec<u8>, value: i32);
    /// Appends an `i64`.
    fn put_i64(out: &mut Vec<u8>, value: i64);
    /// Appends an `i128`.
    fn put_i128(out: &mut Vec<u8>, value: i128);
    /// Appends a `char`.
    fn put_char(out: &mut Vec<u8>, value: char);

    /// Reads a `u16`.
    fn u16(input: &mut Input<'_>) -> Result<u16, Malformed>;
    /// Reads a `u32`.
    fn u32(input: &mut Input<'_>) -> Result<u32, Malformed>;
    /// Reads a `u64`.
    fn u64(input: &mut Input<'_>) -> Result<u64, Malformed>;
    /// Reads a `u128`.
    fn u128(input: &mut Input<'_>) -> Result<u128, Malformed>;
    /// Reads an `i16`.
    fn i16(input: &mut Input<'_>) -> Result<i16, Malformed>;
    /// Reads an `i32`.
    fn i32(input: &mut Input<'_>) -> Result<i32, Malformed>;
    /// Reads an `i64`.
    fn i64(input: &mut Input<'_>) -> Result<i64, Malformed>;
    /// Reads an `i128`.
    fn i128(input: &mut Input<'_>) -> Result<i128, Malformed>;
    /// Reads a `char`.
    fn char(input: &mut Input<'_>) -> Result<char, Malformed>;
}
