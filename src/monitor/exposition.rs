//! The metrics page: what was counted and what is alive, in the text format of Prometheus.
//!
//! The names are a contract (docs/operations.md). Units are seconds and bytes. Label values are
//! configured names and words of ours only; `-` stands for "none". Families and their lines are
//! sorted, so that two pages can be compared.

use std::collections::{BTreeMap, HashMap};
use std::time::UNIX_EPOCH;

use prometheus::TextEncoder;
use prometheus::proto::MetricType;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram as ProtoHistogram, LabelPair, Metric, MetricFamily};

mod director;

use super::process::Process;
use super::view::{ServerState, View};
use crate::state::affinity::learnt::Finding;
use crate::state::commands::Answers;
use crate::state::counters::{Counters, NONE, OTHER_CODE};
use crate::state::director::{Table, Unavailable};
use crate::state::histogram::Histogram;

/// The media type of `page`.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Tables of more rules than this show only the rules that were hit: a page of 100,000 zeros helps nobody.
const RULES_SHOWN_AT_ZERO: usize = 2000;

/// The whole page.
pub fn page(
    view: &View,
    answers: &Answers<Counters>,
    process: &Process,
    table: &Result<Table, Unavailable>,
) -> Result<String, prometheus::Error> {
    let names = Names::of(view);
    let mut families = Families::default();
    requests(&mut families, &names, &answers.merged);
    listeners(&mut families, view, &answers.merged);
    upstreams(&mut families, &names, &answers.merged);
    servers(&mut families, view);
    media(&mut families, view);
    affinities(&mut families, view);
    tickets(&mut families, view);
    rules(&mut families, &answers.merged);
    director::director(&mut families, table);
    ourselves(&mut families, view, answers, process);
    TextEncoder::new().encode_to_string(&families.finish())
}

fn requests(families: &mut Families, names: &Names, counters: &Counters) {
    let mut totals: BTreeMap<[String; 4], u64> = BTreeMap::new();
    let mut times: BTreeMap<[&str; 2], (Histogram, Histogram)> = BTreeMap::new();
    for (labels, requests) in counters.requests() {
        let (Some(listener), Some(pool)) = (names.listener(labels.listener), names.pool(labels.pool)) else {
            continue;
        };
        let (total, first_byte) = times.entry([listener, pool]).or_default();
        total.merge(&requests.total);
        first_byte.merge(&requests.first_byte);
        let Some(server) = names.server(labels.pool, labels.server) else {
            continue;
        };
        for (code, count) in requests.codes() {
            let code = if *code == OTHER_CODE { "other".to_owned() } else { code.to_string() };
            *totals.entry([listener.into(), pool.into(), server.into(), code]).or_default() += count;
        }
    }
    let help = "Requests answered, by a server or by Reeve itself (server \"-\").";
    for ([listener, pool, server, code], count) in &totals {
        let labels = [("listener", &**listener), ("pool", pool), ("server", server), ("code", code)];
        families.counter("reeve_requests_total", help, &labels, *count as f64);
    }
    for ([listener, pool], (total, first_byte)) in &times {
        let labels = [("listener", *listener), ("pool", *pool)];
        let help = "From the first byte of a request to the last byte of its answer.";
        families.histogram("reeve_request_duration_seconds", help, &labels, total);
        let help = "From the first byte of a request to the first byte of a server's answer.";
        families.histogram("reeve_request_first_byte_seconds", help, &labels, first_byte);
    }
}

fn listeners(families: &mut Families, view: &View, counters: &Counters) {
    let counted: HashMap<u32, _> = counters.listeners().collect();
    let nothing = Default::default();
    for listener in &view.listeners {
        let counters = counted.get(&listener.number).copied().unwrap_or(&nothing);
        let own = ("listener", &*listener.name);
        let help = "Connections accepted from clients.";
        families.counter("reeve_connections_accepted_total", help, &[own], counters.accepted as f64);
        let help = "Open client connections; idle ones wait for a request.";
        for (state, count) in [("active", counters.active), ("idle", counters.idle)] {
            families.gauge("reeve_connections", help, &[own, ("state", state)], count as f64);
        }
        let help = "Bytes exchanged with clients, heads included.";
        for (direction, count) in [("received", counters.received), ("sent", counters.sent)] {
            families.counter("reeve_bytes_total", help, &[own, ("direction", direction)], count as f64);
        }
        let help = "TLS handshakes with clients; a resumed one is of a session that was there before.";
        for (version, resumed, count) in counters.handshakes().filter(|_| listener.tls) {
            let resumed = ("resumed", if resumed { "yes" } else { "no" });
            let labels = [own, ("version", version), resumed];
            families.counter("reeve_tls_handshakes_total", help, &labels, count as f64);
        }
        let help = "Connections and requests turned away before a server saw them.";
        for (reason, count) in counters.rejected() {
            families.counter("reeve_rejected_total", help, &[own, ("reason", reason.as_str())], count as f64);
        }
    }
}

fn upstreams(families: &mut Families, names: &Names, counters: &Counters) {
    let mut sorted: Vec<_> = counters
        .upstreams()
        .filter_map(|(labels, counters)| {
            Some((names.pool(labels.pool)?, names.server(labels.pool, labels.server)?, counters))
        })
        .collect();
    sorted.sort_by_key(|(pool, server, _)| (*pool, *server));
    for (pool, server, counters) in sorted {
        let labels = [("pool", pool), ("server", server)];
        let help = "Attempts to connect to a server, by what came of them.";
        for (result, count) in counters.connects() {
            let labels = [labels[0], labels[1], ("result", result.as_str())];
            families.counter("reeve_upstream_connects_total", help, &labels, count as f64);
        }
        let help = "Requests sent on a connection to a server that had served before.";
        families.counter("reeve_upstream_reuses_total", help, &labels, counters.reuses as f64);
    }
    let mut sorted: Vec<_> = counters
        .affinities()
        .filter_map(|(pool, result, count)| Some((names.pool(pool)?, result.as_str(), count)))
        .collect();
    sorted.sort_unstable();
    for (pool, result, count) in sorted {
        let help = "Requests and connections to pools with affinity, by whether they came to the server they were at.";
        families.counter("reeve_affinity_total", help, &[("pool", pool), ("result", result)], count as f64);
    }
    let mut sorted: Vec<_> = counters
        .retries()
        .filter_map(|(pool, reason, count)| Some((names.pool(pool)?, reason.as_str(), count)))
        .collect();
    sorted.sort_unstable();
    for (pool, reason, count) in sorted {
        let help = "Requests tried once more, by what had gone wrong.";
        families.counter("reeve_retries_total", help, &[("pool", pool), ("reason", reason)], count as f64);
    }
    let mut sorted: Vec<_> = counters
        .mirrors()
        .filter_map(|(pool, result, count)| Some((names.pool(pool)?, result.as_str(), count)))
        .collect();
    sorted.sort_unstable();
    for (pool, result, count) in sorted {
        let help = "Copies of requests for another pool, by what came of them.";
        families.counter("reeve_mirrored_total", help, &[("pool", pool), ("result", result)], count as f64);
    }
}

fn servers(families: &mut Families, view: &View) {
    for pool in &view.pools {
        let help = "Requests and connections that wait for a server that is not full.";
        families.gauge("reeve_queue", help, &[("pool", &*pool.name)], pool.waiting as f64);
        if let Some(refused) = pool.retries_refused {
            let help = "Requests not tried once more because the budget for retries was used up.";
            families.counter("reeve_retries_refused_total", help, &[("pool", &*pool.name)], refused as f64);
        }
        if let Some(panics) = pool.panics {
            let help = "1 while so few servers of a pool are up that all are used; else 0.";
            families.gauge("reeve_pool_panic", help, &[("pool", &*pool.name)], f64::from(u8::from(panics)));
        }
        for server in &pool.servers {
            let labels = [("pool", &*pool.name), ("server", &*server.name)];
            let up = if server.state == ServerState::Down { 0.0 } else { 1.0 };
            let help = "1 when a server is up by its health checks, or has none, and is not ejected; else 0.";
            families.gauge("reeve_server_up", help, &labels, up);
            let help = "1 when a server takes no new requests: its weight is 0, or it was drained by hand; else 0.";
            let draining = if server.drained || server.state == ServerState::Draining { 1.0 } else { 0.0 };
            families.gauge("reeve_server_draining", help, &labels, draining);
            if let Some(ejected) = server.ejected {
                let help = "1 while a server is out because of how it answered; else 0.";
                families.gauge("reeve_server_ejected", help, &labels, f64::from(u8::from(ejected)));
            }
            let help = "Requests that a server is working on.";
            families.gauge("reeve_server_in_flight", help, &labels, server.in_flight as f64);
            if let Some(probe) = &server.probe {
                let help = "How long the last health check of a server took.";
                families.gauge("reeve_check_duration_seconds", help, &labels, probe.took.as_secs_f64());
            }
        }
    }
}

fn media(families: &mut Families, view: &View) {
    let servers = view.pools.iter().flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)));
    for (pool, server) in servers {
        let Some(media) = &server.media else { continue };
        let own = [("pool", &*pool.name), ("server", &*server.name)];
        let help = "RTSP sessions at a server.";
        families.gauge("reeve_media_sessions", help, &own, media.sessions.into());
        let help = "What the descriptions of these sessions name together (b=AS), in kbit/s.";
        families.gauge("reeve_media_kilobits", help, &own, media.kilobits as f64);
        for (transport, count) in media.streams {
            let help = "Streams of these sessions, by whether they come on the connection, or by UDP and relayed or offloaded.";
            let labels = [own[0], own[1], ("transport", transport)];
            families.gauge("reeve_media_streams", help, &labels, count as f64);
        }
        for (direction, packets, bytes) in media.traffic {
            let labels = [own[0], own[1], ("direction", direction)];
            families.counter("reeve_media_packets_total", "Packets and frames of media.", &labels, packets as f64);
            families.counter("reeve_media_bytes_total", "Bytes of media.", &labels, bytes as f64);
        }
        for (direction, packets) in media.offloaded {
            let help = "Packets of media that the director has passed on in the kernel; the others passed through this process.";
            let labels = [own[0], own[1], ("direction", direction)];
            families.counter("reeve_media_offloaded_packets_total", help, &labels, packets as f64);
        }
        let help = "Packets of media that receivers have reported as lost, but for streams that are offloaded.";
        families.counter("reeve_media_lost_total", help, &own, media.lost as f64);
        let help = "How unevenly media arrives, by the last report of a receiver whose stream is not offloaded (a clock of 90 kHz is assumed).";
        families.gauge("reeve_media_jitter_seconds", help, &own, media.jitter);
    }
}

fn affinities(families: &mut Families, view: &View) {
    for table in &view.affinities {
        let own = [("table", &*table.name)];
        let help = "Clients that a pool, or a group of pools, knows by what they show.";
        families.gauge("reeve_affinity_entries", help, &own, table.entries as f64);
        let help = "Memory that the table of these clients takes when it is full.";
        families.gauge("reeve_affinity_table_bytes", help, &own, table.bytes as f64);
        let help = "Clients that were forgotten before their time, to make room for others.";
        families.counter("reeve_affinity_evicted_total", help, &own, table.evicted as f64);
    }
}

fn tickets(families: &mut Families, view: &View) {
    for pool in &view.pools {
        for (server, finding) in &pool.tickets {
            for word in Finding::WORDS {
                let labels = [("pool", &*pool.name), ("server", server), ("finding", word)];
                let help = "1 for what the TLS session tickets of a server are good for, else 0.";
                let value = if finding.word() == word { 1.0 } else { 0.0 };
                families.gauge("reeve_tls_tickets", help, &labels, value);
            }
        }
    }
}

fn rules(families: &mut Families, counters: &Counters) {
    let all = counters.rules.len() <= RULES_SHOWN_AT_ZERO;
    for (rule, hits) in counters.rules.iter().filter(|(_, hits)| all || *hits > 0) {
        let help = "Requests that a rule took.";
        families.counter("reeve_rule_hits_total", help, &[("rule", rule)], hits as f64);
    }
}

fn ourselves(families: &mut Families, view: &View, answers: &Answers<Counters>, process: &Process) {
    let help = "Loads of the configuration while running, by whether it was taken or refused.";
    for (result, count) in [("ok", view.reloads.done), ("refused", view.reloads.refused)] {
        families.counter("reeve_reloads_total", help, &[("result", result)], count as f64);
    }
    let help = "Upgrades of the running program, by whether the new process took over.";
    for (result, count) in [("ok", view.upgrades.done), ("refused", view.upgrades.refused)] {
        families.counter("reeve_upgrades_total", help, &[("result", result)], count as f64);
    }
    let help = "Processes that were replaced by an upgrade and finish what they have in hand.";
    families.gauge("reeve_old_generations", help, &[], view.old.len() as f64);
    let help = "Open client connections of these processes; reeve_connections has those of the newest.";
    let connections: u64 = view.old.iter().map(|old| old.connections).sum();
    families.gauge("reeve_old_generation_connections", help, &[], connections as f64);
    let help = "Which configuration is in force: 1 at the start, one more with each reload and upgrade.";
    families.gauge("reeve_config_generation", help, &[], view.generation as f64);
    if let Some(loaded) = view.loaded {
        let help = "When it was put in force, since 1970.";
        let at = loaded.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        families.gauge("reeve_config_loaded_time_seconds", help, &[], at);
    }
    let help = "Lines of the access log dropped because they could not be written in time.";
    families.counter("reeve_log_dropped_total", help, &[], view.log_dropped as f64);
    let help = "Faults of Reeve (panics) that ended a request, a connection or a probe, and nothing else.";
    families.counter("reeve_panics_total", help, &[], view.panics as f64);
    let help = "Workers that did not answer when this page was made; what they counted since is missing.";
    families.gauge("reeve_workers_silent", help, &[], answers.silent.len() as f64);
    let help = "Always 1; the labels say what runs.";
    families.gauge("reeve_build_info", help, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);

    // The names every client library uses for these.
    let started = view.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    families.gauge("process_start_time_seconds", "When the process started, since 1970.", &[], started);
    if let Some(seconds) = process.cpu_seconds {
        let help = "Processor time used, user and system.";
        families.counter("process_cpu_seconds_total", help, &[], seconds);
    }
    let sizes = [
        ("process_resident_memory_bytes", "Memory in use.", process.resident_bytes),
        ("process_open_fds", "Open descriptors.", process.open_files),
        ("process_max_fds", "Descriptors that may be open.", process.max_files),
    ];
    for (name, help, value) in sizes {
        if let Some(value) = value {
            families.gauge(name, help, &[], value as f64);
        }
    }
}

/// The configured names by their numbers. What is not configured any more has none.
struct Names<'a> {
    listeners: HashMap<u32, &'a str>,
    pools: HashMap<u32, &'a str>,
    servers: HashMap<(u32, u32), &'a str>,
}

impl<'a> Names<'a> {
    fn of(view: &'a View) -> Names<'a> {
        Names {
            listeners: view.listeners.iter().map(|listener| (listener.number, &*listener.name)).collect(),
            pools: view.pools.iter().map(|pool| (pool.number, &*pool.name)).collect(),
            servers: view
                .pools
                .iter()
                .flat_map(|pool| pool.servers.iter().map(|server| ((pool.number, server.number), &*server.name)))
                .collect(),
        }
    }

    fn listener(&self, number: u32) -> Option<&'a str> {
        self.listeners.get(&number).copied()
    }

    fn pool(&self, number: u32) -> Option<&'a str> {
        if number == NONE { Some("-") } else { self.pools.get(&number).copied() }
    }

    fn server(&self, pool: u32, number: u32) -> Option<&'a str> {
        if number == NONE { Some("-") } else { self.servers.get(&(pool, number)).copied() }
    }
}

/// The families of a page by name; one exists from its first line on.
#[derive(Default)]
struct Families(BTreeMap<&'static str, MetricFamily>);

impl Families {
    fn counter(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        self.add(name, help, MetricType::COUNTER, metric);
    }

    fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        self.add(name, help, MetricType::GAUGE, metric);
    }

    fn histogram(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let buckets = histogram.cumulative().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut proto = ProtoHistogram::default();
        proto.set_bucket(buckets.collect());
        proto.set_sample_count(histogram.count());
        proto.set_sample_sum(histogram.sum());
        let mut metric = labelled(labels);
        metric.set_histogram(proto);
        self.add(name, help, MetricType::HISTOGRAM, metric);
    }

    fn add(&mut self, name: &'static str, help: &str, kind: MetricType, metric: Metric) {
        let family = self.0.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric().push(metric);
    }

    fn finish(self) -> Vec<MetricFamily> {
        self.0.into_values().collect()
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}
