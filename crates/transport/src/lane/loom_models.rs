//! The lane under a model checker: these run the shipped producer, consumer and holds in every order of
//! their steps (up to `LOOM_MAX_PREEMPTIONS` switches away from a thread that could go on), and let every
//! load see every value that the memory order allows.
//!
//! Not to be seen here: a load that takes effect after a later store of its own thread (the checker does not
//! model it, so the `Release` of `HEAD` against reads before it is argued and not checked), and everything
//! that needs the kernel's sockets: who rings whom, and which source is looked at when.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use crate::error::Error;
use crate::lane::budget;
use crate::lane::consumer::{Consumer, Place, Record};
use crate::lane::hold::Hold;
use crate::lane::layout::{FLAGS, HEAD, HEADER_LEN, Kind, PINNED, RECORD_HEADER, TAIL};
use crate::lane::producer::{Producer, Published};
use crate::os::descriptor;
use crate::os::shared::Region;

/// Bytes of every message: a number in the first word and again in the last.
const BODY: usize = 48;
const LAST_WORD: usize = BODY - 8;
const LONG: usize = 2 * BODY;

/// What a connection is for a lane: bells stay in it until somebody waits, and then one is as good as many.
type Bell = Arc<Notify>;

fn bell() -> Bell {
    Arc::new(Notify::new())
}

fn lane(capacity: u32) -> (Producer, Consumer) {
    // The machine's memory is none of the model's business.
    budget::set_limit(Some(u64::MAX / 2));
    let producer = Producer::new(capacity, false).unwrap();
    let (offset, len) = producer.first_ring();
    let place = Place {
        offset,
        len,
        start: 0,
        read: 0,
        taken: 0,
        base: 0,
        bounded: capacity > 0,
        pinned: false,
        once: false,
    };
    let consumer = Consumer::new(descriptor::duplicate(producer.file()).unwrap(), place).unwrap();
    (producer, consumer)
}

fn try_send(producer: &mut Producer, number: u64) -> Result<Published, Error> {
    producer.send(Kind::Plain, BODY, |region, at| {
        region.word(at).store(number, Ordering::Relaxed);
        region.word(at + LAST_WORD).store(number, Ordering::Relaxed);
    })
}

fn send(producer: &mut Producer, number: u64, bell: &Bell) {
    if try_send(producer, number).unwrap().ring {
        bell.notify();
    }
}

/// A message for which the first ring is too small: its number is in every word.
fn send_long(producer: &mut Producer, number: u64, bell: &Bell) {
    let published = producer.send(Kind::Plain, LONG, |region, at| {
        for word in (at..at + LONG).step_by(8) {
            region.word(word).store(number, Ordering::Relaxed);
        }
    });
    if published.unwrap().ring {
        bell.notify();
    }
}

fn number(read: impl Fn(usize, &mut [u8])) -> u64 {
    let mut words = [[0; 8]; 2];
    read(0, &mut words[0]);
    read(LAST_WORD, &mut words[1]);
    let [first, last] = words.map(u64::from_ne_bytes);
    assert_eq!(first, last, "a message is torn");
    first
}

fn number_of(consumer: &Consumer, record: &Record) -> u64 {
    assert_eq!((record.kind, record.len), (Kind::Plain, BODY));
    number(|at, bytes| consumer.copy_out_from(record, at, bytes))
}

fn held(hold: &Hold) -> u64 {
    number(|at, bytes| hold.copy_out(at, bytes))
}

/// Sleeps until there is a record.
fn next(consumer: &mut Consumer, bell: &Bell) -> Record {
    loop {
        if let Some(record) = consumer.peek().unwrap() {
            return record;
        }
        if consumer.arm() {
            bell.wait();
        }
    }
}

/// Takes messages `from..=to`, each as it should be.
fn receive(consumer: &mut Consumer, from: u64, to: u64, bell: &Bell) {
    for expected in from..=to {
        let record = next(consumer, bell);
        assert_eq!(number_of(consumer, &record), expected);
        assert!(!consumer.take(&record), "nobody waits for room");
    }
}

fn word(producer: &Producer, at: usize) -> u64 {
    let header = Region::map(producer.file(), 0, HEADER_LEN).unwrap();
    header.word(at).load(Ordering::Relaxed)
}

fn tail(producer: &Producer) -> u64 {
    word(producer, TAIL)
}

/// Whether a part of the file, told by its offset and length, reads as zeroes: its pages were given back.
fn is_zero(file: BorrowedFd<'_>, (offset, len): (u64, u64)) -> bool {
    let part = Region::map(file, offset, len as usize).unwrap();
    (0..part.len())
        .step_by(8)
        .all(|at| part.word(at).load(Ordering::Relaxed) == 0)
}

/// The rings that a producer was in.
struct Rings(Vec<(u64, u64)>);

impl Rings {
    fn new(producer: &Producer) -> Rings {
        Rings(vec![producer.first_ring()])
    }

    fn note(&mut self, producer: &Producer) {
        let ring = producer.first_ring();
        if self.0.last() != Some(&ring) {
            self.0.push(ring);
        }
    }

    fn stayed(&self) -> bool {
        self.0.len() == 1
    }

    fn returned(&self) -> bool {
        !self.stayed() && self.0.first() == self.0.last()
    }
}

/// Runs a model in every order of its steps. Each outcome, told by its index, must have been seen.
fn explore(outcomes: &[&str], model: impl Fn(&dyn Fn(usize)) + Sync + Send + 'static) {
    let seen: std::sync::Arc<Vec<AtomicUsize>> =
        std::sync::Arc::new(outcomes.iter().map(|_| AtomicUsize::new(0)).collect());
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let (inside, counted) = (seen.clone(), runs.clone());
    loom::model(move || {
        counted.fetch_add(1, Relaxed);
        model(&|outcome| {
            inside[outcome].fetch_add(1, Relaxed);
        });
    });
    println!("{} executions", runs.load(Relaxed));
    for (outcome, count) in outcomes.iter().zip(seen.iter()) {
        println!("{outcome}: {}", count.load(Relaxed));
        assert!(count.load(Relaxed) > 0, "never seen: {outcome}");
    }
}

/// Publication, bell and sleep: the consumer sleeps whenever it finds nothing, and every message arrives.
#[test]
fn nobody_sleeps_through_a_publication() {
    explore(&["rang", "saw it in time"], |seen| {
        let (mut producer, mut consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        let receiver = thread::spawn(move || receive(&mut consumer, 1, 3, &there));
        for number in 1..=3 {
            let published = try_send(&mut producer, number).unwrap();
            if published.ring {
                bell.notify();
            }
            seen(usize::from(!published.ring));
        }
        receiver.join().unwrap();
    });
}

/// Growth, SKIP: three messages fill the ring. The fourth does not fit behind the third; it goes to the ring's
/// start if the consumer is quick, else to another ring, used once, and the lane returns. All arrive, in order.
#[test]
fn a_full_ring_is_followed_by_its_start_or_by_another() {
    let outcomes = ["went round", "returned", "overflowed twice"];
    explore(&outcomes, |seen| {
        let (mut producer, mut consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        let receiver = thread::spawn(move || receive(&mut consumer, 1, 5, &there));
        let mut rings = Rings::new(&producer);
        for number in 1..=5 {
            send(&mut producer, number, &bell);
            rings.note(&producer);
        }
        if rings.stayed() {
            seen(0);
        } else if rings.returned() {
            seen(1);
        } else if rings.0.len() > 2 {
            seen(2);
        }
        receiver.join().unwrap();
    });
}

/// A message longer than the ring was made for takes the lane to a larger one for good, whose predecessor's
/// pages go back to the system: not before what is held in it was let go.
#[test]
fn a_ring_that_is_left_stays_while_it_is_read() {
    explore(&[], |_| {
        let (mut producer, mut consumer) = lane(0);
        let first = producer.first_ring();
        let bell = bell();
        let there = bell.clone();
        let receiver = thread::spawn(move || {
            let record = next(&mut consumer, &there);
            let hold = consumer.hold(&record, 0);
            consumer.take(&record);
            let reader = thread::spawn(move || assert_eq!(held(&hold), 1));
            let record = next(&mut consumer, &there);
            assert_eq!(record.len, LONG);
            consumer.take(&record);
            reader.join().unwrap();
            assert!(
                is_zero(consumer.file(), first),
                "its pages were not given back"
            );
        });
        send(&mut producer, 1, &bell);
        send_long(&mut producer, 2, &bell);
        assert_ne!(producer.first_ring(), first);
        receiver.join().unwrap();
    });
}

/// Close: what the producer was told is sent was published before the consumer closed; what the consumer took
/// was told to be sent; and once the close is known, nothing is sent.
#[test]
fn a_record_after_the_close_is_known_to_be_lost() {
    let outcomes = ["sent", "lost", "unread"];
    explore(&outcomes, |seen| {
        let (mut producer, mut consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        let closed = Arc::new(AtomicBool::new(false));
        let known = closed.clone();
        let receiver = thread::spawn(move || {
            receive(&mut consumer, 1, 1, &there);
            consumer.close();
            closed.store(true, Ordering::Release);
            let mut there_at_close = 1;
            while let Some(record) = consumer.peek().unwrap() {
                there_at_close += 1;
                assert_eq!(number_of(&consumer, &record), there_at_close);
                consumer.take(&record);
            }
            there_at_close
        });
        send(&mut producer, 1, &bell);
        let mut sent = 1;
        for number in 2..=3 {
            let too_late = known.load(Ordering::Acquire);
            match try_send(&mut producer, number) {
                Ok(published) => {
                    assert!(!too_late, "nobody will take it");
                    assert_eq!(sent, number - 1, "a lane does not open again");
                    sent = number;
                    if published.ring {
                        bell.notify();
                    }
                }
                Err(Error::ReceiverGone) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let there_at_close = receiver.join().unwrap();
        assert!(
            sent <= there_at_close,
            "a message was neither refused nor to be found"
        );
        match sent {
            1 => seen(1),
            2 => seen(2),
            _ => seen(0),
        }
    });
}

/// Sharing: before another process can send, SHARED is set. So a consumer that sees no SHARED with a record
/// misses nothing elsewhere that was sent before it. This one looks elsewhere only if it sees SHARED.
#[test]
fn whoever_sees_a_later_record_sees_that_the_channel_is_shared() {
    explore(&["first alone", "first among others"], |seen| {
        let (mut producer, mut consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        let elsewhere = Arc::new(AtomicBool::new(false));
        let other = elsewhere.clone();
        let receiver = thread::spawn(move || {
            let mut take = |expected| {
                let record = next(&mut consumer, &there);
                let looks = consumer.is_shared();
                assert_eq!(number_of(&consumer, &record), expected);
                consumer.take(&record);
                looks
            };
            let looks = take(1);
            assert!(take(2), "a message elsewhere was sent before this one");
            assert!(elsewhere.load(Ordering::Acquire));
            looks
        });
        send(&mut producer, 1, &bell);
        producer.share();
        let sender = thread::spawn(move || other.store(true, Ordering::Release));
        sender.join().unwrap();
        send(&mut producer, 2, &bell);
        seen(usize::from(receiver.join().unwrap()));
    });
}

/// The bounded wait: there are never more messages under way than the capacity, and a producer that sleeps
/// for room is rung.
#[test]
fn a_bounded_producer_wakes_when_there_is_room() {
    explore(&["waited", "saw room in time"], |seen| {
        let (mut producer, mut consumer) = lane(1);
        let (news, room) = (bell(), bell());
        let (arrived, made) = (news.clone(), room.clone());
        let receiver = thread::spawn(move || {
            for expected in 1..=3 {
                let record = next(&mut consumer, &arrived);
                assert_eq!(number_of(&consumer, &record), expected);
                if consumer.take(&record) {
                    made.notify();
                }
            }
        });
        for number in 1..=3 {
            while !producer.has_room() {
                let waits = producer.wait_for_room();
                if waits {
                    room.wait();
                }
                seen(usize::from(!waits));
            }
            send(&mut producer, number, &news);
            assert!(producer.backlog() <= 1);
        }
        receiver.join().unwrap();
    });
}

/// Holds: two messages are kept where they lie by another thread, let go in the wrong order, while the
/// producer goes round the ring. What is held stays as it was, and in the end the producer may use everything.
#[test]
fn what_is_held_is_not_written_over() {
    let outcomes = ["went round", "overflowed"];
    explore(&outcomes, |seen| {
        let (mut producer, mut consumer) = lane(0);
        let mut rings = Rings::new(&producer);
        let bell = bell();
        let there = bell.clone();
        for number in 1..=2 {
            send(&mut producer, number, &bell);
        }
        let mut hold = || {
            let record = next(&mut consumer, &there);
            let hold = consumer.hold(&record, 0);
            consumer.take(&record);
            hold
        };
        let (first, second) = (hold(), hold());
        let reader = thread::spawn(move || {
            assert_eq!(held(&second), 2);
            drop(second);
            assert_eq!(held(&first), 1);
            drop(first);
        });
        let receiver = thread::spawn(move || {
            receive(&mut consumer, 3, 4, &there);
            consumer.arm();
        });
        for number in 3..=4 {
            send(&mut producer, number, &bell);
            rings.note(&producer);
        }
        seen(usize::from(!rings.stayed()));
        reader.join().unwrap();
        receiver.join().unwrap();
        let published = tail(&producer) & !FLAGS;
        assert_eq!(
            word(&producer, HEAD),
            published,
            "something is kept for nobody"
        );
    });
}

/// An early return: what the consumer has still to read is little, and another thread holds a message in the ring
/// that the producer leaves. It stays as it was until it is let go, and only then goes back to the system.
#[test]
fn what_is_held_in_a_ring_used_once_outlives_an_early_return() {
    explore(&["let go before it was left", "let go after"], |seen| {
        let (mut producer, mut consumer) = lane(0);
        let home = producer.first_ring();
        let bell = bell();
        let there = bell.clone();
        for number in 1..=4 {
            send(&mut producer, number, &bell);
        }
        let once = producer.first_ring();
        receive(&mut consumer, 1, 3, &bell);
        let record = next(&mut consumer, &bell);
        let hold = consumer.hold(&record, 0);
        consumer.take(&record);
        let let_go = Arc::new(AtomicBool::new(false));
        let known = let_go.clone();
        let reader = thread::spawn(move || {
            assert_eq!(held(&hold), 4);
            drop(hold);
            let_go.store(true, Ordering::Relaxed);
        });
        let receiver = thread::spawn(move || {
            receive(&mut consumer, 5, 6, &there);
            usize::from(!known.load(Ordering::Relaxed))
        });
        for number in 5..=6 {
            send(&mut producer, number, &bell);
            assert_eq!(producer.first_ring(), home, "it did not return");
        }
        reader.join().unwrap();
        seen(receiver.join().unwrap());
        assert!(is_zero(producer.file(), once), "kept for nobody");
    });
}

/// Large messages that are let go one after the other follow each other at the ring's start, where the SKIP that
/// leads there and what is still read are not written over.
#[test]
fn large_messages_follow_each_other_at_the_rings_start() {
    explore(&["at the start again", "behind the last one"], |seen| {
        let (mut producer, mut consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        let receiver = thread::spawn(move || {
            for expected in 1..=3u64 {
                let record = next(&mut consumer, &there);
                assert_eq!(record.len, LONG);
                let hold = consumer.hold(&record, 0);
                consumer.take(&record);
                let mut bytes = [0; LONG];
                hold.copy_out(0, &mut bytes);
                assert_eq!(
                    bytes,
                    [expected; LONG / 8].map(u64::to_ne_bytes).concat()[..]
                );
            }
        });
        for number in 1..=3 {
            let before = tail(&producer) & !FLAGS;
            send_long(&mut producer, number, &bell);
            let step = (tail(&producer) & !FLAGS) - before;
            if number > 1 {
                seen(usize::from(step < 2 * LONG as u64));
            }
        }
        receiver.join().unwrap();
    });
}

/// The same where the message is held in the home ring: then there is no return before it was let go.
#[test]
fn what_is_held_in_the_home_ring_puts_an_early_return_off() {
    explore(&["returned", "stayed away"], |seen| {
        let (mut producer, mut consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        let mut rings = Rings::new(&producer);
        for number in 1..=4 {
            send(&mut producer, number, &bell);
            rings.note(&producer);
        }
        let record = next(&mut consumer, &bell);
        let hold = consumer.hold(&record, 0);
        consumer.take(&record);
        receive(&mut consumer, 2, 4, &bell);
        let reader = thread::spawn(move || assert_eq!(held(&hold), 1));
        let receiver = thread::spawn(move || receive(&mut consumer, 5, 5, &there));
        send(&mut producer, 5, &bell);
        rings.note(&producer);
        seen(usize::from(!rings.returned()));
        reader.join().unwrap();
        receiver.join().unwrap();
    });
}

/// A ring that is used once is given back page by page, while the producer writes on in it: never what is not yet
/// read. A message that is held in the ring before it keeps none of its pages.
#[test]
fn what_is_read_is_given_back_while_the_producer_writes_on() {
    explore(&[], |_| {
        let (mut producer, mut consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        for number in 1..=5 {
            send(&mut producer, number, &bell);
        }
        receive(&mut consumer, 1, 3, &bell);
        let record = next(&mut consumer, &bell);
        // As long as it is held, too much is unread for a return.
        let hold = consumer.hold(&record, 0);
        consumer.take(&record);
        let ring = producer.first_ring();
        let receiver = thread::spawn(move || {
            receive(&mut consumer, 5, 7, &there);
            consumer
        });
        for number in 6..=7 {
            send(&mut producer, number, &bell);
            assert_eq!(producer.first_ring(), ring, "it went on elsewhere");
        }
        let consumer = receiver.join().unwrap();
        let read = 3 * (RECORD_HEADER + BODY) as u64;
        assert!(is_zero(producer.file(), (ring.0, read)), "kept for nobody");
        assert_eq!(held(&hold), 4);
        drop(consumer);
    });
}

/// A move: the receiver goes to another process, which goes on in the same ring, while its old owner still
/// reads a message where it lies. The ring is left and not used again.
#[test]
fn what_the_old_owner_holds_outlives_a_move() {
    explore(&["overflowed twice", "has a new ring"], |seen| {
        let (mut producer, consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        send(&mut producer, 1, &bell);
        let (mut heir, hold) = move_away(consumer);
        let reader = thread::spawn(move || assert_eq!(held(&hold), 1));
        let receiver = thread::spawn(move || receive(&mut heir, 2, 5, &there));
        let mut rings = Rings::new(&producer);
        for number in 2..=5 {
            send(&mut producer, number, &bell);
            rings.note(&producer);
        }
        assert!(!rings.returned());
        reader.join().unwrap();
        receiver.join().unwrap();
        // The producer clears it when it gives the ring up.
        seen(usize::from(tail(&producer) & PINNED == 0));
    });
}

/// The same where the old owner holds a message in the ring before the one that it hands on.
#[test]
fn what_the_old_owner_holds_outlives_a_move_from_another_ring() {
    explore(&["has a new ring"], |seen| {
        let (mut producer, mut consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        for number in 1..=4 {
            send(&mut producer, number, &bell);
        }
        let record = next(&mut consumer, &bell);
        let hold = consumer.hold(&record, 0);
        consumer.take(&record);
        receive(&mut consumer, 2, 3, &bell);
        let (mut heir, last) = move_away(consumer);
        let reader = thread::spawn(move || assert_eq!((held(&hold), held(&last)), (1, 4)));
        let receiver = thread::spawn(move || receive(&mut heir, 5, 6, &there));
        for number in 5..=6 {
            send(&mut producer, number, &bell);
        }
        reader.join().unwrap();
        receiver.join().unwrap();
        if tail(&producer) & PINNED == 0 {
            seen(0);
        }
    });
}

/// The same where the ring is left for good: its pages do not go back to the system.
#[test]
fn what_the_old_owner_holds_outlives_its_ring() {
    explore(&[], |_| {
        let (mut producer, consumer) = lane(0);
        let bell = bell();
        let there = bell.clone();
        send(&mut producer, 1, &bell);
        let (mut heir, hold) = move_away(consumer);
        let reader = thread::spawn(move || assert_eq!(held(&hold), 1));
        let receiver = thread::spawn(move || {
            let record = next(&mut heir, &there);
            heir.take(&record);
        });
        send_long(&mut producer, 2, &bell);
        reader.join().unwrap();
        receiver.join().unwrap();
    });
}

/// Takes a message, which stays where it lies, and goes on in another process.
fn move_away(mut consumer: Consumer) -> (Consumer, Hold) {
    let record = consumer.peek().unwrap().unwrap();
    let hold = consumer.hold(&record, 0);
    consumer.take(&record);
    let file = descriptor::duplicate(consumer.file()).unwrap();
    let heir = Consumer::new(file, consumer.depart()).unwrap();
    consumer.departed();
    (heir, hold)
}
