//! Measures the crate ipc-channel with the subjects of `ipc-channel bench`, from Rust to Rust.
//!
//! `rust-peer SUBJECT SECONDS` measures for about that long and prints a line for each figure: its name, a tab, and its
//! value in units of one (seconds, bytes a second, operations a second). Nothing is printed unless what came through
//! was right.
//!
//! `rust-peer --peer SUBJECT NAME` is the other process of such a subject, which connects to a one-shot server. Python
//! starts it as well, to measure what goes from there to Rust and back.

mod channels;
mod enums;
mod measure;
mod peer;
mod round_trips;
mod selecting;
mod seqpacket;
mod shared_memory;
mod streams;
mod transfers;

use std::env;
use std::error::Error;
use std::process::ExitCode;

/// What goes wrong here goes to standard error; there is nobody who could do something about it.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Seconds after which a process of this program is ended by the kernel: a peer that waits for one that has died
/// would wait for ever.
const LIFETIME: u32 = 300;

fn main() -> ExitCode {
    // SAFETY: alarm(2) takes a number and touches no memory of ours.
    unsafe { libc::alarm(LIFETIME) };
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["--peer", subject, name] => answer(subject, name),
        ["--seqpacket-peer", descriptor] => seqpacket::answer(descriptor),
        [subject, seconds] => match seconds.parse() {
            Ok(seconds) => measure(subject, seconds),
            Err(_) => Err(format!("{seconds} is not a number of seconds").into()),
        },
        _ => Err("usage: rust-peer SUBJECT SECONDS".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust-peer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The measuring process.
fn measure(subject: &str, seconds: f64) -> Result<()> {
    match subject {
        "bytes-64" => streams::bytes("bytes-64", 64, seconds),
        "bytes-1mib" => streams::bytes("bytes-1mib", 1 << 20, seconds),
        "struct" => streams::structs(seconds),
        "round-trip-busy" => round_trips::busy(seconds),
        "round-trip-asleep" => round_trips::asleep(seconds),
        "request" => round_trips::requests(seconds),
        "channel" => channels::create(seconds),
        "select" => selecting::one_of_many(seconds),
        "shared-memory-sizes" => shared_memory::sizes(seconds),
        "shared-memory-1mib" => shared_memory::create_and_send(seconds),
        "seqpacket-busy" => seqpacket::busy(seconds),
        "seqpacket-asleep" => seqpacket::asleep(seconds),
        "upstream-bytes" => transfers::bytes(seconds),
        "upstream-ends" => transfers::ends(seconds),
        "upstream-select" => selecting::some_of_many(seconds),
        "upstream-sets" => selecting::sets(seconds),
        "upstream-enums" => enums::transfer(seconds),
        "upstream-shared-memory" => shared_memory::ping_pong(),
        _ => Err(format!("there is no subject {subject}").into()),
    }
}

/// The other process of a subject that has two.
fn answer(subject: &str, name: &str) -> Result<()> {
    match subject {
        "bytes-64" => streams::receive_bytes(name, 64),
        "bytes-1mib" => streams::receive_bytes(name, 1 << 20),
        "struct" => streams::receive_structs(name),
        "send-bytes-64" => streams::send_bytes(name, 64),
        "send-bytes-64-back" => streams::send_bytes_back(name, 64),
        "send-struct" => streams::send_structs(name),
        "send-struct-back" => streams::send_structs_back(name),
        "round-trip-busy" => round_trips::answer_busy(name),
        "round-trip-asleep" => round_trips::answer_asleep(name),
        "request" => round_trips::answer_requests(name),
        "shared-memory" => shared_memory::receive(name),
        _ => Err(format!("{subject} has no second process").into()),
    }
}
