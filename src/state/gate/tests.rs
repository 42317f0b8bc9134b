//! Who is called, in which order, and what becomes of a call that is not used.

use super::*;
use crate::state::kind::WasAt;

fn called(waiter: &Waiter) -> bool {
    waiter.poll_called(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// In line, having looked in vain.
fn join(gate: &Arc<Gate>, priority: i32) -> Waiter {
    choosy(gate, priority, &[])
}

/// The same, not to be at some servers.
fn choosy(gate: &Arc<Gate>, priority: i32, not_at: &[u32]) -> Waiter {
    let waiter = gate.join(priority, Kind { not_at: not_at.into(), ..Kind::default() }, 10).unwrap();
    waiter.found_none();
    waiter
}

const PLACE: Cause = Cause::Server(1);

#[test]
fn the_first_is_called_and_the_highest_priority_before() {
    let gate = Arc::new(Gate::default());
    let (low, one, two, high) = (join(&gate, -1), join(&gate, 0), join(&gate, 0), join(&gate, 7));
    assert_eq!((low.is_first(), one.is_first(), two.is_first(), high.is_first()), (true, false, false, false));
    for _ in 0..2 {
        gate.call(PLACE);
        // It has not left, and waits again.
        assert_eq!([&high, &one, &two, &low].map(called), [true, false, false, false]);
    }
    high.found_none();
    drop(high);
    gate.call(PLACE);
    assert_eq!([&one, &two, &low].map(called), [true, false, false]);
    assert!(gate.join(0, Kind::default(), 3).is_none() && gate.waiting() == 3);
}

#[test]
fn two_places_call_two() {
    let gate = Arc::new(Gate::default());
    let (one, two, three) = (join(&gate, 0), join(&gate, 0), join(&gate, 0));
    gate.call(PLACE);
    gate.call(PLACE);
    assert_eq!([&one, &two, &three].map(called), [true, true, false]);
}

#[test]
fn a_place_that_is_taken_calls_nobody_else() {
    let gate = Arc::new(Gate::default());
    let (one, two, other) = (join(&gate, 0), join(&gate, 0), choosy(&gate, 0, &[9]));
    gate.call(PLACE);
    assert!(called(&one));
    one.found(1);
    drop(one);
    assert_eq!([&two, &other].map(called), [false; 2]);
}

#[test]
fn a_call_that_is_not_used_goes_on() {
    let gate = Arc::new(Gate::default());
    let (one, two) = (join(&gate, 0), join(&gate, 0));
    gate.call(PLACE);
    drop(one);
    assert!(called(&two) && !called(&two));
    // Called again as it was about to leave with a place.
    gate.call(PLACE);
    let three = join(&gate, 0);
    assert!(called(&two));
    gate.call(PLACE);
    drop(two);
    assert!(called(&three) && gate.waiting() == 1);
}

#[test]
fn who_is_called_and_goes_before_he_has_looked_leaves_it_to_the_next() {
    let gate = Arc::new(Gate::default());
    let (one, two, other) = (join(&gate, 0), join(&gate, 0), choosy(&gate, 0, &[9]));
    gate.call(PLACE);
    assert!(called(&one));
    drop(one);
    assert!(called(&two));
    two.found(1);
    drop(two);
    assert!(called(&other), "there may be a place for others, too");
}

#[test]
fn changes_are_looked_at_by_one_after_the_other() {
    let gate = Arc::new(Gate::default());
    let line: Vec<_> = (0..3).map(|_| join(&gate, 0)).collect();
    gate.call_all();
    let mut line = line.into_iter();
    let one = line.next().unwrap();
    assert!(called(&one));
    // It has found a place, so there may be another one.
    drop(one);
    let two = line.next().unwrap();
    assert!(called(&two));
    two.found_none();
    let three = line.next().unwrap();
    assert!(!called(&three));
    drop(two);
    assert!(!called(&three), "there was no place for those before it");
    // Nobody is up any more.
    let four = join(&gate, 0);
    gate.call_all();
    assert!(called(&three));
    three.dismiss();
    drop(three);
    assert!(called(&four));
}

#[test]
fn a_call_that_finds_all_called_is_for_those_who_come_yet() {
    let gate = Arc::new(Gate::default());
    let one = join(&gate, 0);
    gate.call(PLACE);
    assert!(called(&one));
    one.found_none();
    // Two places: the second call finds all called.
    gate.call(PLACE);
    gate.call(PLACE);
    assert!(called(&one));
    let two = gate.join(0, Kind::default(), 10).unwrap();
    assert!(!two.is_first());
    one.found(1);
    drop(one);
    assert!(called(&two));
    // The same, where the first goes without having looked.
    let three = join(&gate, 0);
    gate.call(PLACE);
    gate.call(PLACE);
    drop(two);
    let four = gate.join(0, Kind::default(), 10).unwrap();
    assert!(called(&three));
    three.found(1);
    drop(three);
    assert!(called(&four));
}

#[test]
fn who_comes_as_another_is_called_looks_after_him() {
    let gate = Arc::new(Gate::default());
    let one = join(&gate, 5);
    gate.call(PLACE);
    let two = gate.join(0, Kind { not_at: [9].as_slice().into(), ..Kind::default() }, 10).unwrap();
    assert!(!two.is_first() && !called(&two));
    assert!(called(&one));
    one.found(1);
    drop(one);
    assert!(called(&two), "there may be another place");
    // A higher priority does not wait for a lower one.
    gate.call(PLACE);
    let three = gate.join(1, Kind { not_at: [8].as_slice().into(), ..Kind::default() }, 10).unwrap();
    assert!(three.is_first());
}

#[test]
fn the_first_that_comes_tells_the_next_of_what_it_found() {
    let gate = Arc::new(Gate::default());
    let one = gate.join(0, Kind::default(), 10).unwrap();
    let two = gate.join(0, Kind::default(), 10).unwrap();
    assert!(one.is_first() && !two.is_first());
    // Two places had become free before anybody was seen to wait.
    drop(one);
    assert!(called(&two));
}

#[test]
fn who_cannot_use_a_place_passes_it_on() {
    let gate = Arc::new(Gate::default());
    let (other, one, two, any, more) =
        (choosy(&gate, 5, &[1]), choosy(&gate, 0, &[2]), choosy(&gate, 0, &[2]), join(&gate, 0), join(&gate, 0));
    let line = [&other, &one, &two, &any, &more];
    gate.call(PLACE);
    assert_eq!(line.map(called), [false, true, false, false, false], "it may not be there");
    // What it was called for is of no use to the others of its kind.
    one.found_none();
    assert_eq!(line.map(called), [false, false, false, true, false]);
    any.found_none();
    assert_eq!(line.map(called), [false; 5], "nobody is asked twice");
    // In the pool there is room, so that others may be had.
    gate.call(Cause::Pool(1));
    assert!(called(&other));
    // It has left with another place than that.
    other.found(2);
    drop(other);
    assert_eq!([&one, &two, &any, &more].map(called), [true, false, false, false]);
    one.found(1);
    drop(one);
    assert_eq!([&two, &any, &more].map(called), [false; 3], "it is taken");
    // Called, and gone before it has looked.
    gate.call(PLACE);
    drop(two);
    assert_eq!([&any, &more].map(called), [true, false]);
}

#[test]
fn a_call_in_vain_looks_at_each_kind_a_few_times() {
    const KINDS: u32 = 100;
    let gate = Arc::new(Gate::default());
    // Each was at another server, and two of each wait.
    let kind = |number| Kind { was_at: WasAt::Server(number % KINDS), ..Kind::default() };
    let line: Vec<_> = (0..2 * KINDS).map(|number| gate.join(0, kind(number), u32::MAX).unwrap()).collect();
    line.iter().for_each(Waiter::found_none);
    for times in 1..4 {
        gate.call(PLACE);
        let mut looks = 0;
        while let Some(up) = line.iter().find(|waiter| called(waiter)) {
            looks += 1;
            up.found_none();
        }
        assert_eq!(looks, KINDS, "one of each");
        let looked_at = gate.line().looked_at;
        assert!(looked_at <= times * 3 * KINDS as usize, "{looked_at} for {times} calls");
    }
}

#[test]
fn who_comes_before_all_of_his_kind_is_asked_before_those_who_come_after_him() {
    let gate = Arc::new(Gate::default());
    let [one, two, three, four] = [6, 7, 8, 9].map(|not_at| choosy(&gate, 0, &[not_at]));
    gate.call(PLACE);
    assert!(called(&one));
    one.found_none();
    // The call has come to `two`, and is to come to the others; who comes now goes before all of them.
    let high = choosy(&gate, 5, &[8]);
    assert!(!high.is_first() && called(&two));
    two.found_none();
    assert_eq!([&high, &three, &four, &one].map(called), [true, false, false, false]);
    high.found_none();
    assert_eq!([&high, &three, &four, &one].map(called), [false, false, true, false], "one of a kind");
    four.found_none();
    assert_eq!([&high, &one, &two, &three, &four].map(called), [false; 5]);
}

#[test]
fn a_place_that_is_not_for_all_is_told_to_those_it_is_for() {
    let gate = Arc::new(Gate::default());
    let at = |was_at, manner| {
        let waiter = gate.join(0, Kind { was_at, manner, ..Kind::default() }, 10).unwrap();
        waiter.found_none();
        waiter
    };
    let line = [
        at(WasAt::Nowhere, 4),
        at(WasAt::Server(2), 4),
        at(WasAt::Server(1), 4),
        at(WasAt::Unknown(7), 4),
        at(WasAt::Nowhere, 3),
    ];
    gate.call(Cause::Clients(1, 4));
    let mut asked = Vec::new();
    while let Some(up) = (0..line.len()).find(|up| called(&line[*up])) {
        asked.push(up);
        line[up].found_none();
    }
    assert_eq!(asked, [2, 3, 4], "its client, who may be one, and who waits for the pool as it was");
    // Taken, it is nobody else's.
    gate.call(Cause::Clients(1, 4));
    assert!(called(&line[2]));
    line[2].found(1);
    let [one, two, three, four, five] = line;
    drop(three);
    assert_eq!([one, two, four, five].each_ref().map(called), [false; 4]);
}

/// Threads take and leave places that are fewer than they are: nobody waits for ever, nor are there ever more.
#[test]
fn no_place_is_lost_between_threads() {
    const PLACES: u32 = 2;
    let gate = Arc::new(Gate::default());
    let inside = AtomicU32::new(0);
    let serve = || {
        for _ in 0..3_000 {
            if gate.is_waited_at() || !gate.requests().enter(PLACES) {
                wait(&gate);
            }
            assert!(inside.fetch_add(1, Ordering::SeqCst) < PLACES);
            inside.fetch_sub(1, Ordering::SeqCst);
            gate.requests().leave();
            if gate.is_waited_at() {
                gate.call(PLACE);
            }
        }
    };
    std::thread::scope(|scope| (0..6).for_each(|_| drop(scope.spawn(serve))));
    assert_eq!((gate.waiting(), gate.requests().get()), (0, 0));
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait(gate: &Arc<Gate>) {
    let waiter = gate.join(0, Kind::default(), u32::MAX).unwrap();
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut look = waiter.is_first();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if look {
            if gate.requests().enter(2) {
                return;
            }
            waiter.found_none();
        }
        look = waiter.poll_called(&mut Context::from_waker(&waker)).is_ready();
        if !look {
            std::thread::park_timeout(deadline.saturating_duration_since(std::time::Instant::now()));
            assert!(std::time::Instant::now() < deadline, "a place is free, and nobody was called");
        }
    }
}
