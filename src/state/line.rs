//! Those who wait at a gate: who is called when a place is free.
//!
//! Who may use the same places is of one [`Kind`]: where one of them finds nothing, no other does. A place that becomes free
//! makes one call. It goes to the first in line, of those kinds that may be at that server; who takes another place, or none,
//! sends it on to the first of a kind that it has not been at. So it ends after as many looks as there are kinds, and never
//! goes back. Nearly always there is one kind, and one look.
//!
//! That nobody waits while there is a place for him rests on this: of each kind of which somebody waits and has not been
//! called, no more places are free than there are calls which are to be answered by that kind, or still to come to it. A place
//! that becomes free adds one to both, one that is taken with its call takes one from both; who looks in vain has shown that
//! there is none. A call that finds all of a kind called is noted (`many`): then those who come later are, one after the other,
//! called by whoever goes before them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::task::Waker;

use smallvec::SmallVec;

/// What a request may use of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kind {
    /// Servers that it may not be at, by their ids, in order.
    pub not_at: SmallVec<[u32; 4]>,
    /// The number of the server that it was at, where it may be at one that nobody else may.
    pub was_at: Option<u32>,
    /// Whose connections it may share, where connections are bounded; 0: nobody's.
    pub shares: usize,
    /// How the pool that it waits for is spoken to.
    pub manner: u32,
}

/// The highest priority first, and who came first of the same.
pub type At = (Reverse<i32>, u64);

/// All who wait.
#[derive(Debug, Default)]
pub struct Line {
    groups: Vec<Group>,
    count: usize,
    /// How many waiters and groups there have been.
    number: u64,
}

/// Those of one kind.
#[derive(Debug)]
struct Group {
    number: u64,
    kind: Kind,
    waiters: BTreeMap<At, Waits>,
    /// There may be places for more than those who are called.
    many: bool,
}

#[derive(Debug, Default)]
struct Waits {
    call: Option<Call>,
    waker: Option<Waker>,
}

/// What somebody is called for.
#[derive(Debug)]
pub struct Call {
    cause: Cause,
    /// The groups that it has been at: as many at most as there are.
    been: SmallVec<[u64; 4]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A place at that server.
    Server(u32),
    /// A place at that server and in the pool: now others may be had, too.
    Pool(u32),
    /// Something has changed.
    Change,
    /// Those of one kind see to it among themselves.
    Kind,
}

/// Where somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    group: u64,
    at: At,
}

/// What somebody is told who has been called.
#[derive(Debug)]
pub struct Called {
    pub call: Call,
    /// When it goes, the next of its kind is to look, too.
    pub many: bool,
}

impl Line {
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it is to look at once: it is the only one of its kind. Where somebody before it is called and has not looked
    /// yet, it is to wait, and is called after that one, whatever place that takes.
    pub fn join(&mut self, priority: i32, kind: Kind) -> (Spot, bool) {
        self.number += 1;
        self.count += 1;
        let (number, at) = (self.number, (Reverse(priority), self.number));
        let known = self.groups.iter().position(|group| group.kind == kind);
        let known = known.unwrap_or_else(|| {
            self.groups.push(Group { number, kind, waiters: BTreeMap::new(), many: false });
            self.groups.len() - 1
        });
        let group = &mut self.groups[known];
        let only = group.waiters.is_empty();
        // Calls may have found nobody of its kind.
        group.many |= group.next().is_none();
        group.waiters.insert(at, Waits::default());
        let spot = Spot { group: group.number, at };
        (spot, only && !self.is_behind(at))
    }

    /// Has somebody who is called, and before `at`, send his call on in any case; whether there is one. Of each kind the
    /// first is looked at: that of another one is not the rule.
    fn is_behind(&mut self, at: At) -> bool {
        let firsts =
            self.groups.iter_mut().filter_map(|group| group.waiters.first_entry()).filter(|first| *first.key() < at);
        let call = firsts.filter_map(|first| first.into_mut().call.as_mut()).next();
        call.map(|call| call.cause = Cause::Change).is_some()
    }

    /// A place is free, or something has changed. Who is to be woken.
    #[must_use]
    pub fn call(&mut self, cause: Cause) -> Option<Waker> {
        if cause == Cause::Change {
            self.groups.iter_mut().for_each(|group| group.many = true);
        }
        self.go_on(Call { cause, been: SmallVec::new() })
    }

    /// The first in line of a kind that may use what is free and was not asked yet is called.
    #[must_use]
    pub fn go_on(&mut self, mut call: Call) -> Option<Waker> {
        let asked = |group: &&mut Group| !call.been.contains(&group.number) && group.may(call.cause);
        let nexts = self.groups.iter_mut().filter(asked).filter_map(|group| match group.next() {
            Some(at) => Some((at, group)),
            None => {
                group.many = true;
                None
            }
        });
        let (at, group) = nexts.min_by_key(|(at, _)| *at)?;
        call.been.push(group.number);
        group.tell(at, call)
    }

    /// Whether it was called since it was asked last; if not, whom to wake then.
    pub fn take(&mut self, spot: Spot, waker: &Waker) -> Option<Called> {
        let group = self.group(spot)?;
        let waits = group.waiters.get_mut(&spot.at)?;
        if let Some(call) = waits.call.take() {
            return Some(Called { call, many: std::mem::take(&mut group.many) });
        }
        match &waits.waker {
            Some(old) if old.will_wake(waker) => {}
            _ => waits.waker = Some(waker.clone()),
        }
        None
    }

    /// Somebody goes; `many`: there may be more for its kind. Who is to be woken.
    #[must_use]
    pub fn leave(&mut self, spot: Spot, many: bool) -> Option<Waker> {
        let at = self.groups.iter().position(|group| group.number == spot.group)?;
        let group = &mut self.groups[at];
        let call = group.waiters.remove(&spot.at)?.call;
        self.count -= 1;
        group.many |= many;
        // What it was called for is for another of its kind.
        let call = call.or_else(|| group.many.then(|| Call { cause: Cause::Kind, been: SmallVec::new() }));
        let (next, is_empty) = (group.next(), group.waiters.is_empty());
        let told = match (call, next) {
            (Some(call), Some(next)) => group.tell(next, call),
            (Some(call), None) => {
                // For those who come yet.
                group.many = true;
                self.go_on(call)
            }
            (None, _) => None,
        };
        if is_empty {
            self.groups.swap_remove(at);
        }
        told
    }

    fn group(&mut self, spot: Spot) -> Option<&mut Group> {
        self.groups.iter_mut().find(|group| group.number == spot.group)
    }
}

impl Call {
    /// Whether it was for a place at that server.
    pub fn is_for(&self, server: u32) -> bool {
        matches!(self.cause, Cause::Server(at) | Cause::Pool(at) if at == server)
    }
}

impl Group {
    /// The first who has not been called.
    fn next(&self) -> Option<At> {
        self.waiters.iter().find(|(_, waits)| waits.call.is_none()).map(|(at, _)| *at)
    }

    fn may(&self, cause: Cause) -> bool {
        match cause {
            Cause::Server(server) => !self.kind.not_at.contains(&server),
            Cause::Pool(_) | Cause::Change => true,
            Cause::Kind => false,
        }
    }

    fn tell(&mut self, at: At, call: Call) -> Option<Waker> {
        let waits = self.waiters.get_mut(&at)?;
        waits.call = Some(call);
        waits.waker.take()
    }
}
