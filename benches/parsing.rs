//! What it costs to read messages: heads of requests and answers, and chunked bodies.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use reeve::model::Limits;
use reeve::wire::http1::chunked::{ChunkedBody, Keep};
use reeve::wire::http1::{request, response};

/// What `curl` and most health checks send.
const SHORT: &[u8] = b"GET /1k HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// What a browser sends: eleven fields, a cookie among them.
const BROWSER: &[u8] = b"GET /images/2026/11/shoe.jpg?size=large HTTP/1.1\r\n\
    Host: www.shop.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Referer: https://www.shop.example/shoes\r\n\
    Cookie: session=5d41402abc4b2a76b9719d911017c592; plan=gold; lang=en\r\n\
    Sec-Fetch-Dest: image\r\n\
    Sec-Fetch-Mode: no-cors\r\n\
    Priority: u=5, i\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Fri, 20 Nov 2026 10:00:00 GMT\r\n\
    Server: origin\r\n\
    Content-Type: image/jpeg\r\n\
    Content-Length: 1024\r\n\
    Last-Modified: Mon, 02 Nov 2026 08:00:00 GMT\r\n\
    ETag: \"65535-1024\"\r\n\
    Cache-Control: public, max-age=3600\r\n\
    Vary: Accept-Encoding\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("head");
    for (name, bytes) in [("request, 3 fields", SHORT), ("request, 11 fields", BROWSER)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let head = request::parse(black_box(bytes), &limits).expect("valid").expect("whole");
                black_box((head.raw.len(), head.keep_alive))
            });
        });
    }
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    group.bench_function("answer, 8 fields", |bencher| {
        bencher.iter(|| {
            let head =
                response::parse(black_box(ANSWER), response::Method::Other, &limits).expect("valid").expect("whole");
            black_box((head.raw.len(), head.keep_alive))
        });
    });
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("chunked");
    for size in [100, 1000, 16_000] {
        let body = chunked(64_000, size);
        group.throughput(Throughput::Bytes(body.len() as u64));
        for (name, keep) in [("passed on", Keep::Framed), ("unwrapped", Keep::Data)] {
            group.bench_function(format!("64 KB in chunks of {size}, {name}"), |bencher| {
                bencher.iter_batched_ref(
                    || body.clone(),
                    |body| {
                        let scanned = ChunkedBody::new(keep).scan(black_box(body), &limits).expect("valid");
                        assert!(scanned.done);
                        scanned.kept
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

/// A body of `length` bytes in chunks of `size`.
fn chunked(length: usize, size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..length / size {
        body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        body.resize(body.len() + size, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

criterion_group!(parsing, heads, chunks);
criterion_main!(parsing);
