//! From single probes to up and down. Pure.
//!
//! ```text
//!             good                 fall failures in a row
//!  Unknown ---------> Up ------------------------------------> Down
//!     |                ^                                         |  ^
//!     |                +------------- rise good ones in a row ---+  |
//!     +------------------------- failed ---------------------------+
//! ```

use std::time::SystemTime;

use super::probe::{Advice, Transcript};
use crate::model::check::{Check, Start};
use crate::state::server::STARTS_DOWN;
use crate::state::{Health, Standing};

/// What one check has seen of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    rise: u32,
    fall: u32,
    state: State,
    /// Why it was last found down.
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    /// Failures in a row so far.
    Up(u32),
    /// Good ones in a row so far.
    Down(u32),
}

/// The result of one probe: what was seen, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub ok: bool,
    pub detail: String,
    pub said: Transcript,
    /// What the server says of itself.
    pub advice: Option<Advice>,
}

impl Machine {
    /// `known` is what was found before a reload, if anything was.
    pub fn new(check: &Check, known: Option<&Standing>) -> Machine {
        let (state, why) = match (known, check.start) {
            (None, Start::Unknown) => (State::Unknown, ""),
            (None, Start::Down) => (State::Down(0), STARTS_DOWN),
            (None, Start::Up) | (Some(Standing { health: Health::Up, .. }), _) => (State::Up(0), ""),
            (Some(Standing { health: Health::Down, why, .. }), _) => (State::Down(0), why.as_str()),
        };
        // A threshold of 0 cannot mean anything but 1.
        Machine { rise: check.rise.max(1), fall: check.fall.max(1), state, why: why.to_owned() }
    }

    /// Whether some results in a row speak for a change already.
    fn is_changing(&self) -> bool {
        matches!(self.state, State::Up(1..) | State::Down(1..))
    }

    fn take(&mut self, outcome: &Outcome) {
        self.state = match (self.state, outcome.ok) {
            (State::Unknown | State::Up(_), true) => State::Up(0),
            (State::Unknown, false) => State::Down(0),
            (State::Up(failed), false) if failed + 1 >= self.fall => State::Down(0),
            (State::Up(failed), false) => State::Up(failed + 1),
            (State::Down(good), true) if good + 1 >= self.rise => State::Up(0),
            (State::Down(good), true) => State::Down(good + 1),
            (State::Down(_), false) => State::Down(0),
        };
        if !outcome.ok {
            self.why.clone_from(&outcome.detail);
        }
    }
}

/// All checks of one server, and what they come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    machines: Vec<Machine>,
    verdict: Option<Health>,
}

/// What one more probe did to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub health: Health,
    pub why: String,
    pub at: SystemTime,
    /// It was another before, or not known.
    pub changed: bool,
}

impl Panel {
    /// Whether the check at that position is about to change its mind, or has none yet.
    pub fn is_changing(&self, check: usize) -> bool {
        self.machines.get(check).is_some_and(|machine| machine.is_changing() || machine.state == State::Unknown)
    }

    /// `known` is the verdict before.
    pub fn new(machines: Vec<Machine>, known: Option<&Standing>) -> Panel {
        Panel { machines, verdict: known.map(|standing| standing.health) }
    }

    /// Takes a result of the check at that position. `None` while nothing can be said: no check is down
    /// and not all have answered.
    pub fn take(&mut self, check: usize, outcome: &Outcome, now: SystemTime) -> Option<Verdict> {
        self.machines.get_mut(check)?.take(outcome);
        let down = self.machines.iter().find(|machine| matches!(machine.state, State::Down(_)));
        let (health, why) = match down {
            Some(machine) => (Health::Down, machine.why.clone()),
            None if self.machines.iter().any(|machine| machine.state == State::Unknown) => return None,
            None => (Health::Up, outcome.detail.clone()),
        };
        let changed = self.verdict.replace(health) != Some(health);
        Some(Verdict { health, why, at: now, changed })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Place;
    use crate::model::check::Probe;

    fn machine(rise: u32, fall: u32, known: Option<&Standing>) -> Machine {
        Machine::new(&Check { rise, fall, ..Check::with(Probe::CONNECT, Place::file("test")) }, known)
    }

    fn outcome(ok: bool) -> Outcome {
        let detail = if ok { "status 200" } else { "connect refused" }.to_owned();
        Outcome { ok, detail, said: Transcript::default(), advice: None }
    }

    fn standing(health: Health) -> Standing {
        Standing { health, why: "as before".to_owned(), since: SystemTime::UNIX_EPOCH }
    }

    /// Feeds results, `+` good and `-` failed, and writes down the health after each: `U`, `D`, or `?`.
    fn after(rise: u32, fall: u32, known: Option<Health>, results: &str) -> String {
        let known = known.map(standing);
        let mut panel = Panel::new(vec![machine(rise, fall, known.as_ref())], known.as_ref());
        let letter = |verdict: Option<Verdict>| match verdict.map(|verdict| verdict.health) {
            Some(Health::Up) => 'U',
            Some(Health::Down) => 'D',
            None => '?',
        };
        results.chars().map(|c| letter(panel.take(0, &outcome(c == '+'), SystemTime::now()))).collect()
    }

    #[test]
    fn the_first_result_settles_it() {
        assert_eq!(after(2, 3, None, "+"), "U");
        assert_eq!(after(2, 3, None, "-"), "D");
    }

    #[test]
    fn fall_and_rise_count_in_a_row() {
        assert_eq!(after(2, 3, None, "+--+---"), "UUUUUUD");
        assert_eq!(after(2, 3, None, "-+-++-"), "DDDDUU");
        assert_eq!(after(0, 0, None, "+-+-"), "UDUD");
    }

    #[test]
    fn a_start_can_be_said() {
        let after = |start, results: &str| {
            let check = Check { rise: 2, fall: 2, start, ..Check::with(Probe::CONNECT, Place::file("test")) };
            let mut panel = Panel::new(vec![Machine::new(&check, None)], None);
            let mut healths = Vec::new();
            for c in results.chars() {
                let verdict = panel.take(0, &outcome(c == '+'), SystemTime::now());
                healths.push((verdict.map(|verdict| verdict.health == Health::Up), panel.is_changing(0)));
            }
            healths
        };
        let (up, down) = (Some(true), Some(false));
        assert_eq!(after(Start::Up, "--"), [(up, true), (down, false)]);
        assert_eq!(after(Start::Down, "++"), [(down, true), (up, false)]);
        assert_eq!(after(Start::Unknown, "-+"), [(down, false), (down, true)]);
    }

    #[test]
    fn what_was_known_is_not_forgotten() {
        assert_eq!(after(2, 3, Some(Health::Up), "--"), "UU");
        assert_eq!(after(2, 3, Some(Health::Down), "+"), "D");
        assert_eq!(after(2, 3, Some(Health::Down), "++"), "DU");
    }

    #[test]
    fn all_checks_must_be_good() {
        let machines = vec![machine(1, 1, None), machine(1, 2, None)];
        let mut panel = Panel::new(machines, None);
        let mut take = |check, ok| panel.take(check, &outcome(ok), SystemTime::now()).map(|v| (v.health, v.changed));
        assert_eq!(take(0, true), None, "the other has not answered");
        assert_eq!(take(1, true), Some((Health::Up, true)));
        assert_eq!(take(0, false), Some((Health::Down, true)));
        assert_eq!(take(1, true), Some((Health::Down, false)));
        assert_eq!(take(1, false), Some((Health::Down, false)));
        assert_eq!(take(0, true), Some((Health::Up, true)), "one failure of two is not down");
        assert_eq!(take(7, true), None);
    }

    #[test]
    fn a_server_that_was_down_keeps_its_reason() {
        let known = standing(Health::Down);
        let machines = vec![machine(2, 1, Some(&known)), machine(2, 1, Some(&known))];
        let verdict = Panel::new(machines, Some(&known)).take(1, &outcome(true), SystemTime::now());
        assert_eq!(verdict.map(|verdict| (verdict.why, verdict.changed)), Some((known.why, false)));
    }

    #[test]
    fn why_is_that_of_the_check_that_failed() {
        let mut panel = Panel::new(vec![machine(1, 1, None), machine(1, 1, None)], None);
        let failed = Outcome { detail: "status 503, expected 200-299".into(), ..outcome(false) };
        panel.take(0, &failed, SystemTime::now());
        let verdict = panel.take(1, &outcome(true), SystemTime::now());
        assert_eq!(verdict.map(|verdict| verdict.why), Some(failed.detail));
    }

    proptest! {
        /// Going down takes `fall` failures in a row, coming up `rise` good ones, whatever came before.
        #[test]
        fn changes_need_their_row(rise in 1u32..5, fall in 1u32..5, results: Vec<bool>) {
            let known = standing(Health::Up);
            let mut panel = Panel::new(vec![machine(rise, fall, Some(&known))], Some(&known));
            let (mut row, mut last) = (0, None);
            for ok in results {
                row = if last == Some(ok) { row + 1 } else { 1 };
                last = Some(ok);
                let verdict = panel.take(0, &outcome(ok), SystemTime::now());
                if let Some(verdict) = verdict.filter(|verdict| verdict.changed) {
                    prop_assert_eq!(row, if ok { rise } else { fall });
                    prop_assert_eq!(verdict.health == Health::Up, ok);
                }
            }
        }
    }
}
