//! Servers that are out for a while because they answered badly, and those that are coming back slowly.

use std::time::{Duration, Instant, SystemTime};

use crate::model::pool::Outlier;

/// Part of what is known of a server: whether it is out.
#[derive(Debug, Default)]
pub struct Bench {
    /// Out until then.
    out: Option<Out>,
    /// How often in a row, and when it came back last.
    times: u32,
    back: Option<Instant>,
}

#[derive(Debug)]
struct Out {
    until: Instant,
    since: SystemTime,
    why: String,
}

/// What another process has to know of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// For how long it is still out, since when, and why.
    pub out: Option<(Duration, SystemTime, String)>,
    /// How often in a row it was ejected; 0: it never was.
    pub times: u32,
    /// How long ago it came back last.
    pub back: Option<Duration>,
    /// How long ago its share began to grow, where it has not its whole share yet.
    pub risen: Option<Duration>,
}

impl Bench {
    pub fn past(&self, now: Instant) -> Past {
        let out = |out: &Out| (out.until.saturating_duration_since(now), out.since, out.why.clone());
        let back = self.back.map(|back| now.saturating_duration_since(back));
        Past { out: self.out.as_ref().map(out), times: self.times, back, risen: None }
    }

    /// Goes on with what another process has seen. What is configured now bounds how long it is still out.
    pub fn of(past: Past, outlier: &Outlier, now: Instant) -> Bench {
        let longest = outlier.eject_for_at_most.max(outlier.eject_for);
        let out =
            |(left, since, why): (Duration, SystemTime, String)| Out { until: now + left.min(longest), since, why };
        // A clock that does not reach back that far began with the machine: it has been in for long.
        let back = past.back.and_then(|ago| now.checked_sub(ago));
        Bench { out: past.out.map(out), times: past.times, back }
    }

    pub fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Why and since when it is out.
    pub fn why(&self) -> Option<(&str, SystemTime)> {
        self.out.as_ref().map(|out| (&*out.why, out.since))
    }

    /// Takes it out, longer each time, unless it has been in for as long as it can be out. For how long.
    pub fn eject(&mut self, why: &str, outlier: &Outlier, now: Instant) -> Duration {
        let longest = outlier.eject_for_at_most.max(outlier.eject_for);
        if self.back.is_some_and(|back| now.saturating_duration_since(back) > longest) {
            self.times = 0;
        }
        self.times = self.times.saturating_add(1);
        let time = outlier.eject_for.saturating_mul(self.times).min(longest);
        let why = format!("ejected for {}: {why}", words(time));
        self.out = Some(Out { until: now + time, since: SystemTime::now(), why });
        time
    }

    /// Brings it back when its time is over. Whether it was.
    pub fn release(&mut self, now: Instant) -> bool {
        let over = self.out.as_ref().is_some_and(|out| out.until <= now);
        if over {
            self.out = None;
            self.back = Some(now);
        }
        over
    }
}

fn words(time: Duration) -> String {
    match time.as_millis() {
        millis if millis % 1000 == 0 => format!("{} s", millis / 1000),
        millis => format!("{millis} ms"),
    }
}

/// A server that has come back and does not get its whole share yet.
#[derive(Debug, Clone, Copy)]
pub struct Rise {
    since: Instant,
    whole: Duration,
}

/// The share that it begins with, in percent.
const LEAST: u32 = 10;

impl Rise {
    pub fn new(whole: Duration, now: Instant) -> Rise {
        Rise { since: now, whole }
    }

    /// Goes on with one that began so long ago; `None` where it is over by what is configured now.
    pub fn since(ago: Duration, whole: Duration, now: Instant) -> Option<Rise> {
        let since = now.checked_sub(ago)?;
        (ago < whole).then_some(Rise { since, whole })
    }

    /// For how long it has been so.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// In percent; 100 at the end.
    pub fn portion(&self, now: Instant) -> u32 {
        let gone = now.saturating_duration_since(self.since);
        if gone >= self.whole {
            return 100;
        }
        let share = gone.as_secs_f64() / self.whole.as_secs_f64();
        LEAST + (share * f64::from(100 - LEAST)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_longer_until_the_ceiling_and_good_conduct_is_remembered() {
        let seconds = Duration::from_secs;
        let outlier = Outlier { eject_for: seconds(10), eject_for_at_most: seconds(25), ..Outlier::default() };
        let (mut bench, mut now) = (Bench::default(), Instant::now());
        for expected in [10, 20, 25, 25] {
            assert_eq!(bench.eject("x", &outlier, now), seconds(expected));
            assert!(bench.is_out() && !bench.release(now + seconds(expected - 1)));
            now += seconds(expected);
            assert!(bench.release(now) && !bench.release(now) && !bench.is_out());
        }
        assert_eq!(bench.eject("5 bad answers", &outlier, now + seconds(26)), seconds(10));
        assert_eq!(bench.why().map(|(why, _)| why), Some("ejected for 10 s: 5 bad answers"));
    }

    #[test]
    fn it_goes_on_in_another_process() {
        let seconds = Duration::from_secs;
        let outlier = Outlier { eject_for: seconds(10), eject_for_at_most: seconds(25), ..Outlier::default() };
        let (mut bench, now) = (Bench::default(), Instant::now());
        assert_eq!(bench.past(now), Past::default());
        bench.eject("x", &outlier, now);
        assert!(bench.release(now + seconds(10)));
        bench.eject("y", &outlier, now + seconds(12));
        let past = bench.past(now + seconds(20));
        assert_eq!((past.times, past.back), (2, Some(seconds(10))));
        assert_eq!(past.out.as_ref().map(|(left, ..)| *left), Some(seconds(12)));
        let then = now + seconds(1_000);
        let mut bench = Bench::of(past.clone(), &outlier, then);
        assert_eq!(bench.why().map(|(why, _)| why), Some("ejected for 20 s: y"));
        assert!(!bench.release(then + seconds(11)) && bench.release(then + seconds(12)));
        assert_eq!(bench.eject("z", &outlier, then + seconds(13)), seconds(25));
        // Another configuration is not so patient.
        let brief = Outlier { eject_for: seconds(1), eject_for_at_most: seconds(2), ..outlier };
        assert!(Bench::of(past, &brief, then).release(then + seconds(2)));
    }

    #[test]
    fn a_share_grows_to_the_whole() {
        let now = Instant::now();
        let rise = Rise::new(Duration::from_secs(10), now);
        let at = |seconds| rise.portion(now + Duration::from_secs(seconds));
        assert_eq!([at(0), at(5), at(9), at(10), at(1000)], [10, 55, 91, 100, 100]);
        let five = Duration::from_secs(5);
        let on = |whole| Rise::since(rise.age(now + five), Duration::from_secs(whole), now + five);
        assert_eq!(on(10).map(|rise| rise.portion(now + five)), Some(55));
        assert!(on(20).is_some_and(|rise| rise.portion(now + five) < 40) && on(5).is_none());
    }
}
