use std::io::Read;
use std::sync::atomic::AtomicUsize;

use super::*;

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("reeve-access-log-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn entry(path: &[u8]) -> Entry<'_> {
    Entry {
        unix_ms: 1_795_168_847_012,
        id: 1,
        listener: "web",
        client: "127.0.0.1:1".parse().unwrap(),
        proto: "HTTP/1.1",
        tls: None,
        sni: None,
        method: b"GET",
        host: None,
        path,
        query: None,
        status: 200,
        rule: None,
        pool: None,
        server: None,
        tries: 1,
        bytes_in: 0,
        bytes_out: 0,
        t_queue: Duration::ZERO,
        t_connect: Duration::ZERO,
        t_header: Duration::ZERO,
        t_total: Duration::ZERO,
        affinity: None,
        failure: None,
        side: None,
        matched: None,
        referer: None,
        user_agent: None,
    }
}

fn batch(text: &str) -> Batch {
    Batch { lines: text.lines().count() as u64, bytes: text.into() }
}

fn output(path: PathBuf) -> Output {
    Output::open(&LogTarget::File(path), Arc::default()).unwrap()
}

#[test]
fn every_line_of_every_sink_arrives() {
    let folder = Folder::new();
    let path = folder.file("access.log");
    let dropped: Arc<AtomicU64> = Arc::default();
    let log = AccessLog { format: LogFormat::Json, target: LogTarget::File(path.clone()) };
    let log = Log::start(&log, dropped.clone()).unwrap();
    let mut workers = Vec::new();
    for _ in 0..3 {
        let mut sink = log.door().sink();
        workers.push(thread::spawn(move || {
            for number in 0..1000 {
                sink.record(&entry(format!("/{number}").as_bytes()));
            }
        }));
    }
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(log.close(Duration::from_secs(30)));

    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 3000);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
}

#[test]
fn a_log_that_cannot_be_opened_fails_the_start() {
    let target = LogTarget::File("/nonexistent/folder/access.log".into());
    assert!(Log::start(&AccessLog { format: LogFormat::Text, target }, Arc::default()).is_err());
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let (queue, batches) = sync_channel(1);
    let dropped = Arc::new(AtomicU64::new(0));
    let mut sink = Sink {
        format: LogFormat::Text,
        clock: ClockText::default(),
        lines: 0,
        buffer: Vec::new(),
        queue,
        dropped: dropped.clone(),
    };
    for _ in 0..3 {
        sink.record(&entry(b"/"));
        sink.record(&entry(b"/"));
        sink.flush();
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 4);
    assert_eq!(batches.recv().unwrap().lines, 2);

    // Once there is room, lines pass again.
    sink.record(&entry(b"/later"));
    sink.flush();
    assert!(batches.recv().unwrap().bytes.starts_with(b"127.0.0.1"));
    sink.flush();
    assert!(batches.try_recv().is_err(), "nothing to hand over, nothing handed over");
}

#[test]
fn a_file_that_was_moved_away_is_made_anew() {
    let folder = Folder::new();
    let (path, moved) = (folder.file("access.log"), folder.file("access.log.1"));
    let mut output = output(path.clone());
    let now = Instant::now();
    output.write(&batch("one\n"), now);
    output.follow_name(now);
    output.write(&batch("two\n"), now);
    std::fs::rename(&path, &moved).unwrap();
    // Until the thread looks, lines follow the file.
    output.write(&batch("three\n"), now);
    output.follow_name(now);
    output.write(&batch("four\n"), now);
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\nthree\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
}

#[test]
fn a_folder_that_has_gone_leaves_the_old_file_in_use() {
    let folder = Folder::new();
    let inside = folder.file("logs");
    std::fs::create_dir(&inside).unwrap();
    let mut output = output(inside.join("access.log"));
    let elsewhere = folder.file("old");
    std::fs::rename(&inside, &elsewhere).unwrap();
    output.follow_name(Instant::now());
    assert!(output.trouble.is_some());
    output.write(&batch("kept\n"), Instant::now());
    assert_eq!(std::fs::read_to_string(elsewhere.join("access.log")).unwrap(), "kept\n");
}

#[test]
fn a_full_disk_is_counted_and_said_once_a_minute() {
    let mut output = output("/dev/full".into());
    let start = Instant::now();
    output.write(&batch("a\nb\n"), start);
    let trouble = output.trouble.as_ref().unwrap();
    assert_eq!((trouble.said, trouble.lines), (start, 2));

    output.write(&batch("c\n"), start + COMPLAIN / 2);
    assert_eq!(output.trouble.as_ref().unwrap().said, start, "not said again so soon");
    let later = start + COMPLAIN;
    output.write(&batch("d\n"), later);
    let trouble = output.trouble.as_ref().unwrap();
    assert_eq!((trouble.said, trouble.lines), (later, 4));
    assert_eq!(output.dropped.load(Ordering::Relaxed), 4);

    // Room again: the same output goes on.
    let folder = Folder::new();
    output.file = append(&folder.file("access.log")).unwrap();
    output.write(&batch("e\n"), later);
    assert!(output.trouble.is_none());
    assert_eq!(output.dropped.load(Ordering::Relaxed), 4);
}

#[test]
fn half_a_line_is_closed_before_the_next() {
    let (reader, writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let mut output = Output { file: File::from(std::os::fd::OwnedFd::from(writer)), ..output("/dev/null".into()) };
    output.path = None;

    // One line that is longer than the pipe: it breaks inside, after a second of hope.
    let long = format!("short\n{}\n", "x".repeat(1 << 20));
    output.write(&batch(&long), Instant::now());
    assert!(output.torn);
    assert_eq!(output.dropped.load(Ordering::Relaxed), 1, "the first line was written");

    let reading = thread::spawn(move || {
        let mut text = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut text).unwrap();
        text
    });
    output.write(&batch("next\n"), Instant::now());
    drop(output);
    let text = reading.join().unwrap();
    assert!(text.starts_with("short\nxxx"));
    assert!(text.ends_with("x\nnext\n"));
}
