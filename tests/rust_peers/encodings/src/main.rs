//! What serde, with postcard and with bincode, makes of values, for comparison.
//!
//! `encodings specimens` prints a line for each specimen: its name, and its bytes in either format, in hex.
//! `encodings handles` does so for values that hold ends of channels and shared memory.
//! `encodings echo` reads lines of a format, a type and bytes in hex. For each it prints the bytes of the value that
//! those bytes stand for, or `refused`.

mod handles;
mod specimens;
mod types;

use std::io::{BufRead, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The bytes of the value that the bytes stand for.
fn again<T: Serialize + DeserializeOwned>(format: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    match format {
        "postcard" => {
            let value: T = postcard::from_bytes(bytes).ok()?;
            postcard::to_stdvec(&value).ok()
        }
        "bincode" => {
            let value: T = bincode::deserialize(bytes).ok()?;
            bincode::serialize(&value).ok()
        }
        other => panic!("no format {other}"),
    }
}

fn echo() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap();
        let (format, name, bytes) = (next(), next(), unhex(next()));
        let outcome = match name {
            "numbers" => again::<types::Numbers>(format, &bytes),
            "texts" => again::<types::Texts>(format, &bytes),
            "containers" => again::<types::Containers>(format, &bytes),
            "shapes" => again::<Vec<types::Shape>>(format, &bytes),
            "tree" => again::<types::Tree>(format, &bytes),
            "standard" => again::<types::Standard>(format, &bytes),
            "pages" => again::<types::Page<Option<types::Color>>>(format, &bytes),
            other => panic!("no type {other}"),
        };
        match outcome {
            Some(bytes) => writeln!(out, "{}", hex(&bytes)).unwrap(),
            None => writeln!(out, "refused").unwrap(),
        }
        out.flush().unwrap();
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("specimens") => specimens::print(),
        Some("handles") => handles::print(),
        Some("echo") => echo(),
        _ => panic!("specimens, handles or echo"),
    }
}
