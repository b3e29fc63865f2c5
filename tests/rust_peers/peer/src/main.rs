//! The other end of the tests' channels: a program that uses the crate ipc-channel and does what it is told.
//!
//! ```text
//! peer connect NAME                     a client of the one-shot server of that name
//! peer serve                            a one-shot server, whose name it prints
//! peer start serve PROGRAM [ARG...]     the same, for a program that it starts with the name in PEER_NAME
//! peer start connect PROGRAM [ARG...]   a client of the program that it starts, which prints the name
//! peer produce NAME                     a client that sends one message of each kind
//! ```
//!
//! Once connected it receives [`commands::Command`]s until there can be no more. It ends with code 0 if everything
//! that it was told has come to its end, and if it has as many descriptors as at the beginning; one that has started
//! a program ends with that program's code. Whatever else happens is a panic, and so an abort.

mod commands;
mod errors;
mod loops;
mod making;
mod produce;
mod receiving;
#[path = "../../encodings/src/types.rs"]
mod types;
mod upstream;
mod using;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{self, Child, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};

use commands::{Command, Hello};

/// After this the program ends by itself: nobody is left who would end it.
const LIFETIME: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    thread::spawn(|| {
        thread::sleep(LIFETIME);
        eprintln!("peer: not done after {LIFETIME:?}");
        process::exit(99);
    });
    let before = descriptors();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut child = None;
    match arguments[..] {
        ["connect", name] => connect(name),
        ["serve"] => serve(|name| {
            println!("name {name}");
            std::io::stdout().flush().unwrap();
        }),
        ["start", "serve", program, ref arguments @ ..] => serve(|name| {
            let mut command = process::Command::new(program);
            child = Some(
                command
                    .args(arguments)
                    .env("PEER_NAME", name)
                    .spawn()
                    .unwrap(),
            );
        }),
        ["start", "connect", program, ref arguments @ ..] => {
            let (started, name) = start(program, arguments);
            child = Some(started);
            connect(&name);
        }
        ["produce", name] => produce::everything(name),
        _ => panic!(
            "usage: peer connect NAME | serve | start serve|connect PROGRAM [ARG...] | produce NAME"
        ),
    }
    if let Some(mut child) = child {
        let status = child.wait().unwrap();
        return ExitCode::from(status.code().map_or(98, |code| code as u8));
    }
    let after = descriptors();
    assert!(
        after.len() <= before.len(),
        "more descriptors: {before:?}, then {after:?}"
    );
    ExitCode::SUCCESS
}

/// What every open descriptor is.
fn descriptors() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        // The one that lists them is gone when it is looked at.
        if let Ok(target) = fs::read_link(entry.unwrap().path()) {
            found.push(target.display().to_string());
        }
    }
    found.retain(|target| !target.ends_with("/fd"));
    found
}

fn connect(name: &str) {
    let (sender, commands) = ipc::channel().unwrap();
    let hello = Hello {
        process: process::id(),
        commands: sender,
    };
    IpcSender::connect(name.to_owned())
        .unwrap()
        .send(hello)
        .unwrap();
    obey(None, commands);
}

fn serve(tell: impl FnOnce(&str)) {
    let (server, name) = IpcOneShotServer::new().unwrap();
    tell(&name);
    let (commands, first) = server.accept().unwrap();
    obey(Some(first), commands);
}

/// Starts a program that prints a line `name NAME`, among others, which go to our standard output.
fn start(program: &str, arguments: &[&str]) -> (Child, String) {
    let mut command = process::Command::new(program);
    let mut child = command
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let name = loop {
        let line = lines
            .next()
            .expect("the program has ended without a name")
            .unwrap();
        match line.strip_prefix("name ") {
            Some(name) => break name.to_owned(),
            None => println!("{line}"),
        }
    };
    thread::spawn(move || lines.for_each(|line| println!("{}", line.unwrap())));
    (child, name)
}

/// Each command has a thread of its own; all of them end before this does.
fn obey(first: Option<Command>, commands: IpcReceiver<Command>) {
    let mut running = Vec::new();
    let mut next = first;
    loop {
        let command = match next.take() {
            Some(command) => command,
            None => match commands.recv() {
                Ok(command) => command,
                Err(error) if errors::is_the_end(&error) => break,
                Err(error) => panic!("no command: {error}"),
            },
        };
        running.push(thread::spawn(move || command.run()));
    }
    for thread in running {
        thread.join().unwrap();
    }
}
