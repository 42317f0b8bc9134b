//! Who of a pool answers so badly that it is better left alone for a while. Pure.

use std::time::Duration;

use crate::model::pool::Outlier;
use crate::state::conduct::{Rows, Window};

/// A server as it is judged.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub rows: Rows,
    /// What it did in a window that has just ended.
    pub window: Option<Window>,
    /// It is out already, or down by its checks: the pool has one less either way.
    pub out: bool,
}

/// Those to eject, by their position, and why. Never more than the pool can spare.
pub fn judge(outlier: &Outlier, servers: &[Seen]) -> Vec<(usize, String)> {
    let out = servers.iter().filter(|seen| seen.out).count();
    let mut spare = allowed(outlier, servers.len()).saturating_sub(out);
    let usual = usual_time(servers, outlier);
    let mut ejected = Vec::new();
    for (position, seen) in servers.iter().enumerate().filter(|(_, seen)| !seen.out) {
        if spare == 0 {
            break;
        }
        if let Some(why) = fault(outlier, seen, usual) {
            ejected.push((position, why));
            spare -= 1;
        }
    }
    ejected
}

/// How many may be out at once: the share, and one of several in any case, but never the only one.
fn allowed(outlier: &Outlier, total: usize) -> usize {
    let share = total * outlier.eject_at_most as usize / 10_000;
    share.max(usize::from(outlier.eject_at_most > 0)).min(total.saturating_sub(1))
}

fn fault(outlier: &Outlier, seen: &Seen, usual: Option<Duration>) -> Option<String> {
    let Rows { bad, failed } = seen.rows;
    if outlier.consecutive_failures.is_some_and(|most| failed >= most) {
        return Some(format!("{failed} failures in a row"));
    }
    if outlier.consecutive_5xx.is_some_and(|most| bad >= most) {
        return Some(format!("{bad} answers of 500 and above, or failures, in a row"));
    }
    let window = seen.window.filter(|window| enough(window, outlier))?;
    let (total, share) = (window.good + window.bad, outlier.failure_rate);
    if share.is_some_and(|share| window.bad * 10_000 > u64::from(share) * total) {
        return Some(format!("{} of {total} answers were bad", window.bad));
    }
    let (own, usual) = (mean(&window)?, usual?);
    let slow = outlier.slower_than.is_some_and(|times| own > usual.mul_f64(times));
    slow.then(|| format!("it takes {} ms, the others of the pool {} ms", own.as_millis(), usual.as_millis()))
}

fn enough(window: &Window, outlier: &Outlier) -> bool {
    window.good + window.bad >= u64::from(outlier.least_requests)
}

fn mean(window: &Window) -> Option<Duration> {
    (window.good > 0).then(|| window.took.div_f64(window.good as f64))
}

/// The median of the servers' mean times. It takes three to say which one is odd.
fn usual_time(servers: &[Seen], outlier: &Outlier) -> Option<Duration> {
    let windows = servers.iter().filter(|seen| !seen.out).filter_map(|seen| seen.window);
    let mut times: Vec<Duration> =
        windows.filter(|window| enough(window, outlier)).filter_map(|it| mean(&it)).collect();
    times.sort_unstable();
    // Of an even number, the lower one: half of them may be slow.
    (times.len() >= 3).then(|| times[(times.len() - 1) / 2])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(bad: u32, failed: u32) -> Seen {
        Seen { rows: Rows { bad, failed }, ..Seen::default() }
    }

    fn window(good: u64, bad: u64, each: u64) -> Seen {
        let window = Window { good, bad, took: Duration::from_millis(good * each) };
        Seen { window: Some(window), ..Seen::default() }
    }

    fn who(outlier: &Outlier, servers: &[Seen]) -> Vec<usize> {
        judge(outlier, servers).into_iter().map(|(position, _)| position).collect()
    }

    #[test]
    fn rows_of_bad_answers() {
        let outlier = Outlier { consecutive_5xx: Some(5), consecutive_failures: Some(3), ..Outlier::default() };
        assert_eq!(who(&outlier, &[rows(4, 0), rows(5, 0)]), [1]);
        assert_eq!(who(&outlier, &[rows(4, 2), rows(3, 3)]), [1]);
        assert_eq!(judge(&outlier, &[rows(3, 3), rows(0, 0)])[0].1, "3 failures in a row");
        assert!(who(&outlier, &[rows(50, 50)]).is_empty(), "the only one");
    }

    #[test]
    fn the_pool_keeps_what_it_needs() {
        let half = Outlier { consecutive_5xx: Some(1), eject_at_most: 5_000, ..Outlier::default() };
        let bad = || rows(9, 0);
        assert_eq!(who(&half, &[bad(), bad(), bad(), bad()]), [0, 1]);
        assert_eq!(who(&half, &[Seen { out: true, ..bad() }, bad(), bad(), bad()]), [1]);
        assert_eq!(who(&half, &[bad(), bad()]), [0]);
        let few = Outlier { eject_at_most: 1_000, ..half };
        assert_eq!(who(&few, &[bad(), bad(), bad()]), [0], "one of several in any case");
        assert!(who(&Outlier { eject_at_most: 0, ..few }, &[bad(), bad()]).is_empty());
    }

    #[test]
    fn shares_of_bad_answers_and_slow_ones() {
        let rate = Outlier { failure_rate: Some(2_000), least_requests: 10, ..Outlier::default() };
        assert_eq!(who(&rate, &[window(79, 21, 1), window(80, 20, 1), window(0, 9, 1)]), [0]);
        let slow = Outlier { slower_than: Some(3.0), least_requests: 10, ..Outlier::default() };
        assert_eq!(who(&slow, &[window(10, 0, 10), window(10, 0, 40), window(10, 0, 12)]), [1]);
        assert!(who(&slow, &[window(10, 0, 10), window(10, 0, 40)]).is_empty(), "which of two is odd?");
        assert!(who(&slow, &[window(10, 0, 10), window(9, 0, 40), window(10, 0, 12)]).is_empty(), "too few");
    }

    proptest! {
        #[test]
        fn never_more_than_allowed(bad in proptest::collection::vec((0u32..9, any::<bool>()), 0..20), most in 0u32..=10_000) {
            let outlier = Outlier { consecutive_5xx: Some(5), eject_at_most: most, ..Outlier::default() };
            let servers: Vec<Seen> = bad.iter().map(|(row, out)| Seen { out: *out, ..rows(*row, 0) }).collect();
            let before = servers.iter().filter(|seen| seen.out).count();
            let after = before + judge(&outlier, &servers).len();
            prop_assert!(after == before || after <= allowed(&outlier, servers.len()));
            prop_assert!(after == before || after < servers.len());
        }
    }
}
