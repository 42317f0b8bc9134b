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
//!
//! A call goes down the line of those who are the first of their kinds, from where it was: each step costs the logarithm of
//! how many kinds there are. At its end it looks at all kinds once more, for those that stood elsewhere as it came by.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::task::Waker;

use smallvec::SmallVec;

use super::kind::Kind;

/// The highest priority first, and who came first of the same.
pub type At = (Reverse<i32>, u64);

/// All who wait.
#[derive(Debug, Default)]
pub struct Line {
    groups: BTreeMap<u64, Group>,
    /// The first of each group who is not called.
    nexts: BTreeMap<At, u64>,
    count: usize,
    /// How many waiters and groups there have been.
    number: u64,
    /// How many of them came before all of their kind.
    overtaken: u64,
    /// Groups that calls have looked at.
    #[cfg(test)]
    pub looked_at: usize,
}

/// Those of one kind.
#[derive(Debug)]
struct Group {
    kind: Kind,
    waits: BTreeMap<At, Option<Waker>>,
    called: BTreeMap<At, Call>,
    /// There may be places for more than those who are called.
    many: bool,
}

/// What somebody is called for.
#[derive(Debug)]
pub struct Call {
    cause: Cause,
    /// The groups that it has been at, in order: as many at most as there are.
    been: SmallVec<[u64; 4]>,
    /// How far down the line it is.
    past: Option<At>,
    /// [`Line::overtaken`], when it was last sent on.
    overtaken: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A place at that server.
    Server(u32),
    /// A place at that server and in the pool: now others may be had, too.
    Pool(u32),
    /// A place at that server, which takes none but its own clients, in a pool that is spoken to in that manner.
    Clients(u32, u32),
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
        let (new, at) = (self.number, (Reverse(priority), self.number));
        let known = self.groups.iter().find(|(_, group)| group.kind == kind).map(|(number, _)| *number);
        let behind = known.is_none() && self.is_behind(at);
        let number = known.unwrap_or_else(|| {
            self.groups.insert(new, Group::new(kind));
            new
        });
        let next = self.change(number, |group| {
            let next = group.next();
            // Calls may have found nobody of its kind. Who looks at once tells the next of what it finds.
            group.many |= next.is_none() && (behind || known.is_some());
            group.waits.insert(at, None);
            next
        });
        if next.flatten().is_some_and(|next| at < next) {
            self.overtaken += 1;
        }
        (Spot { group: number, at }, known.is_none() && !behind)
    }

    /// Has somebody who is called, and before `at`, send his call on in any case; whether there is one. Of each kind the
    /// first is looked at: that of another one is not the rule.
    fn is_behind(&mut self, at: At) -> bool {
        let mut called = self.groups.values_mut().filter_map(Group::first_call);
        let Some((before, call)) = called.find(|(first, _)| *first < at) else { return false };
        (call.cause, call.past) = (Cause::Change, call.past.min(Some(before)));
        true
    }

    /// A place is free, or something has changed. Who is to be woken.
    #[must_use]
    pub fn call(&mut self, cause: Cause) -> Option<Waker> {
        if cause == Cause::Change {
            self.groups.values_mut().for_each(|group| group.many = true);
        }
        self.go_on(Call { overtaken: self.overtaken, ..Call::new(cause) })
    }

    /// The first in line of a kind that may use what is free and was not asked yet is called.
    #[must_use]
    pub fn go_on(&mut self, mut call: Call) -> Option<Waker> {
        if call.overtaken != self.overtaken {
            (call.overtaken, call.past) = (self.overtaken, None);
        }
        let (at, number) = self.down_the_line(&call).or_else(|| self.anywhere(&call))?;
        call.past = call.past.max(Some(at));
        call.go_to(number);
        self.change(number, |group| group.tell(at, call)).flatten()
    }

    fn down_the_line(&mut self, call: &Call) -> Option<(At, u64)> {
        let from = call.past.map_or(Unbounded, Excluded);
        for (&at, number) in self.nexts.range((from, Unbounded)) {
            #[cfg(test)]
            {
                self.looked_at += 1;
            }
            if self.groups.get(number).is_some_and(|group| call.is_new_to(*number, group)) {
                return Some((at, *number));
            }
        }
        None
    }

    /// Those of whom none could be called as a call came by, or one who stood before it: their calls were looked after, or
    /// taken back, meanwhile.
    fn anywhere(&mut self, call: &Call) -> Option<(At, u64)> {
        let mut first = None;
        for (number, group) in &mut self.groups {
            #[cfg(test)]
            {
                self.looked_at += 1;
            }
            if !call.is_new_to(*number, group) {
                continue;
            }
            match group.next() {
                Some(at) => first = first.into_iter().chain([(at, *number)]).min(),
                None => group.many = true,
            }
        }
        first
    }

    /// Whether it was called since it was asked last; if not, whom to wake then.
    pub fn take(&mut self, spot: Spot, waker: &Waker) -> Option<Called> {
        self.change(spot.group, |group| {
            if let Some(call) = group.called.remove(&spot.at) {
                group.waits.insert(spot.at, None);
                return Some(Called { call, many: std::mem::take(&mut group.many) });
            }
            match group.waits.get_mut(&spot.at)? {
                Some(old) if old.will_wake(waker) => {}
                waits => *waits = Some(waker.clone()),
            }
            None
        })?
    }

    /// Somebody goes; `many`: there may be more for its kind. Who is to be woken.
    #[must_use]
    pub fn leave(&mut self, spot: Spot, many: bool) -> Option<Waker> {
        self.count -= 1;
        let (waker, left) = self.change(spot.group, |group| {
            group.waits.remove(&spot.at);
            let call = group.called.remove(&spot.at);
            group.many |= many;
            // What it was called for is for another of its kind.
            let call = call.or_else(|| group.many.then(|| Call::new(Cause::Kind)));
            match group.next() {
                Some(next) => (call.and_then(|call| group.tell(next, call)), None),
                None => {
                    // For those who come yet.
                    group.many |= call.is_some();
                    // Which is nothing to other kinds.
                    (None, call.filter(|call| !matches!(call.cause, Cause::Kind)))
                }
            }
        })?;
        waker.or_else(|| self.go_on(left?))
    }

    /// Changes a group, which is no more when nobody is left.
    fn change<T>(&mut self, number: u64, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let group = self.groups.get_mut(&number)?;
        let before = group.next();
        let changed = change(group);
        let after = group.next();
        if before != after {
            before.map(|at| self.nexts.remove(&at));
            after.map(|at| self.nexts.insert(at, number));
        }
        if after.is_none() && group.called.is_empty() {
            self.groups.remove(&number);
        }
        Some(changed)
    }
}

impl Call {
    fn new(cause: Cause) -> Call {
        Call { cause, been: SmallVec::new(), past: None, overtaken: 0 }
    }

    /// Whether it was for a place at that server.
    pub fn is_for(&self, server: u32) -> bool {
        matches!(self.cause, Cause::Server(at) | Cause::Pool(at) | Cause::Clients(at, _) if at == server)
    }

    fn is_new_to(&self, number: u64, group: &Group) -> bool {
        group.may(self.cause) && self.been.binary_search(&number).is_err()
    }

    fn go_to(&mut self, number: u64) {
        if let Err(at) = self.been.binary_search(&number) {
            self.been.insert(at, number);
        }
    }
}

impl Group {
    fn new(kind: Kind) -> Group {
        Group { kind, waits: BTreeMap::new(), called: BTreeMap::new(), many: false }
    }

    /// The first who has not been called.
    fn next(&self) -> Option<At> {
        self.waits.first_key_value().map(|(at, _)| *at)
    }

    /// Where the first of all is called: who, and for what.
    fn first_call(&mut self) -> Option<(At, &mut Call)> {
        let next = self.next();
        let called = self.called.first_entry().filter(|called| next.is_none_or(|next| *called.key() < next))?;
        Some((*called.key(), called.into_mut()))
    }

    fn may(&self, cause: Cause) -> bool {
        match cause {
            Cause::Server(server) => !self.kind.not_at.contains(&server),
            Cause::Clients(server, manner) => self.kind.is_of(server, manner) && !self.kind.not_at.contains(&server),
            Cause::Pool(_) | Cause::Change => true,
            Cause::Kind => false,
        }
    }

    fn tell(&mut self, at: At, call: Call) -> Option<Waker> {
        let waker = self.waits.remove(&at)?;
        self.called.insert(at, call);
        waker
    }
}
