#!/usr/bin/env python3
"""An origin of bounded capacity, and a load that does not slow down when it does.

    farm.py origin PORT PLACES MILLISECONDS
    farm.py load PORT RATE SECONDS PATIENCE

The origin works on PLACES requests at once in so many milliseconds each. With c of them at once, c over PLACES, each takes
(c / PLACES)^2 times as long, judged as it begins: like a server that runs out of memory, caches or locks. What it can do
at best is PLACES / MILLISECONDS; twice as many at once are served half as fast.

The load sends RATE requests a second for SECONDS, evenly, each on a connection of its own that is kept for later ones, and
gives one up (closing its connection) after PATIENCE seconds. It prints one line of JSON: what was offered and served in
time, by status, and how long the answers with 200 took.
"""
import asyncio
import json
import sys
import time


async def origin(port, places, milliseconds):
    inside = 0

    async def serve(reader, writer):
        nonlocal inside
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                inside += 1
                try:
                    await asyncio.sleep(milliseconds / 1000 * max(1, inside / places) ** 2)
                finally:
                    inside -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


async def load(port, rate, seconds, patience):
    idle, statuses, took = [], {}, []

    def count(what):
        statuses[what] = statuses.get(what, 0) + 1

    async def exchange():
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: farm.example\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0]) if "content-length:" in head else 0
            await reader.readexactly(length)
            if "connection: close" in head or "content-length:" not in head:
                writer.close()
            else:
                idle.append((reader, writer))
            return head.split(" ")[1]
        except BaseException:
            writer.close()
            raise

    async def ask():
        since = time.monotonic()
        try:
            status = await asyncio.wait_for(exchange(), patience)
            if status == "200":
                took.append(time.monotonic() - since)
            count(status)
        except asyncio.TimeoutError:
            count("given up")
        except (OSError, asyncio.IncompleteReadError):
            count("broken")

    start, tasks, late = time.monotonic(), [], 0.0
    for number in range(int(rate * seconds)):
        wait = start + number / rate - time.monotonic()
        late = max(late, -wait)
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(ask()))
    await asyncio.gather(*tasks)
    took.sort()
    at = lambda share: round(took[min(len(took) - 1, int(len(took) * share))] * 1000) if took else None
    print(json.dumps({
        "offered": len(tasks), "seconds": seconds, "served_per_second": round(statuses.get("200", 0) / seconds, 1),
        "statuses": dict(sorted(statuses.items())), "p50_ms": at(0.5), "p99_ms": at(0.99), "longest_ms": at(1),
        "load_late_ms": round(late * 1000),
    }))


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    if what == "origin":
        asyncio.run(origin(int(numbers[0]), int(numbers[1]), float(numbers[2])))
    else:
        asyncio.run(load(int(numbers[0]), float(numbers[1]), float(numbers[2]), float(numbers[3])))
