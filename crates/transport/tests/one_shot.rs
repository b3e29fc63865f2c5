//! Meeting through a one-shot server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::thread;
use std::time::Duration;

use ipc_channel_transport::{
    ConnectFailure, Connecting, Deadline, Error, Listener, Outgoing, Parcel, Result, Sender,
};

fn connect(name: &str, deadline: Deadline) -> Result<Sender> {
    Connecting::to(name)?.finish(deadline)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn at_once() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn say(sender: &Sender, payload: &[u8]) {
    let parcel = Parcel {
        payload,
        ..Parcel::default()
    };
    let outgoing = Outgoing::new(&parcel, None).unwrap();
    sender.publish(&outgoing, soon()).unwrap();
    outgoing.delivered();
}

fn why_not(name: &str) -> ConnectFailure {
    match connect(name, at_once()) {
        Err(Error::Connect { why, .. }) => why,
        other => panic!("a connection that should fail: {other:?}"),
    }
}

#[test]
fn a_client_is_served_whichever_comes_first() {
    for allow_uid in [None, Some(0)] {
        let server = Listener::new(allow_uid).unwrap();
        let name = server.name().to_owned();
        let client = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            say(&connect(&name, soon()).unwrap(), b"first");
        });
        let (receiver, message) = server.accept(soon()).unwrap();
        assert_eq!(message.payload(), b"first");
        client.join().unwrap();
        assert!(matches!(receiver.recv(soon()), Err(Error::Disconnected)));
    }
}

#[test]
fn the_seat_is_taken_from_connecting_until_served() {
    let server = Listener::new(None).unwrap();
    let client = connect(server.name(), soon()).unwrap();
    assert!(matches!(
        why_not(server.name()),
        ConnectFailure::AnotherClient
    ));
    say(&client, b"first");
    // The message is on its way: even if its sender leaves, a second client's would be lost.
    client.close();
    drop(client);
    assert!(matches!(
        why_not(server.name()),
        ConnectFailure::AnotherClient
    ));
    let (_receiver, message) = server.accept(soon()).unwrap();
    assert_eq!(message.payload(), b"first");
    assert!(matches!(
        why_not(server.name()),
        ConnectFailure::AnotherClient
    ));
    server.served();
    assert!(matches!(
        why_not(server.name()),
        ConnectFailure::ServedAlready
    ));
    server.close();
    assert!(matches!(
        why_not(server.name()),
        ConnectFailure::NoSuchServer
    ));
}

#[test]
fn a_client_that_leaves_without_a_word_frees_the_seat() {
    let server = Listener::new(None).unwrap();
    let silent = connect(server.name(), soon()).unwrap();
    silent.close();
    let second = connect(server.name(), at_once()).unwrap();
    assert!(matches!(server.accept(at_once()), Err(Error::TimedOut)));
    say(&second, b"second");
    assert_eq!(server.accept(soon()).unwrap().1.payload(), b"second");
}

#[test]
fn a_name_is_never_another_servers() {
    let old = Listener::new(None).unwrap();
    let name = old.name().to_owned();
    drop(old);
    // Their descriptors very likely get the old one's number.
    let _new: Vec<_> = (0..8).map(|_| Listener::new(None).unwrap()).collect();
    assert!(matches!(why_not(&name), ConnectFailure::NoSuchServer));
}

#[test]
fn names_that_are_none() {
    let server = Listener::new(None).unwrap();
    let cut = &server.name()[..server.name().len() - 1];
    let long = "x".repeat(108);
    for name in [
        "",
        "#",
        "@",
        "/",
        "/proc/self/fd/0",
        "@ipc-channel-0-00#",
        cut,
        &long,
        "é#é",
    ] {
        assert!(
            matches!(why_not(name), ConnectFailure::NotAName(_)),
            "{name}"
        );
    }
}
