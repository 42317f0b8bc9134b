"""Python clients through the proxy: one subject a run. usage: clients.py httpx|httpx-h2|aiohttp|websockets HOST:PORT"""
import asyncio, sys

what, address = sys.argv[1:]
url = f"http://{address}"
big = bytes(range(256)) * 4096  # 1 MiB


def with_httpx():
    import httpx

    async def many():
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(limits=limits, timeout=20) as client:
            answers = await asyncio.gather(*[client.get(f"{url}/x?{n}") for n in range(100)])
            assert all(a.status_code == 200 and a.headers["x-path"] == f"/x?{n}" for n, a in enumerate(answers))

    with httpx.Client(timeout=20) as client:
        for _ in range(3):
            assert client.post(f"{url}/up", content=big).content == big
        assert client.post(f"{url}/up", content=(big[:1000] for _ in range(50))).content == big[:1000] * 50
        assert client.head(f"{url}/x").status_code == 200
        with client.stream("POST", f"{url}/s", content=big) as answer:
            assert b"".join(answer.iter_bytes()) == big
    asyncio.run(many())


def with_httpx_h2():
    import httpx

    async def many():
        async with httpx.AsyncClient(http1=False, http2=True, timeout=20) as client:
            answers = await asyncio.gather(*[client.get(f"{url}/x?{n}") for n in range(90)])
            assert all(a.status_code == 200 and a.headers["x-path"] == f"/x?{n}" for n, a in enumerate(answers))
            assert {a.http_version for a in answers} == {"HTTP/2"}

    with httpx.Client(http1=False, http2=True, timeout=20) as client:
        for _ in range(3):
            assert client.post(f"{url}/up", content=big).content == big
        assert client.post(f"{url}/up", content=(big[:1000] for _ in range(50))).content == big[:1000] * 50
        assert client.head(f"{url}/x").status_code == 200
        with client.stream("POST", f"{url}/s", content=big) as answer:
            assert b"".join(answer.iter_bytes()) == big
    asyncio.run(many())


async def with_aiohttp():
    import aiohttp

    async def pieces():
        for start in range(0, len(big), 10_000):
            yield big[start : start + 10_000]

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:

        async def one(n):
            async with session.get(f"{url}/x?{n}") as answer:
                assert answer.status == 200 and answer.headers["x-path"] == f"/x?{n}"
                await answer.read()

        await asyncio.gather(*[one(n) for n in range(200)])
        async with session.put(f"{url}/up", data=pieces()) as answer:
            assert await answer.read() == big
        async with session.put(f"{url}/up", data=big, expect100=True) as answer:
            assert await answer.read() == big
        async with session.ws_connect(f"{url}/ws", max_msg_size=0) as socket:
            await socket.send_bytes(big)
            assert (await socket.receive()).data == big
            await socket.ping()


async def with_websockets():
    import websockets

    async def talk(n):
        async with websockets.connect(f"ws://{address}/ws", max_size=None, open_timeout=20) as socket:
            for size in (1, 126, 70_000, 1_000_000):
                await socket.send(bytes([n]) * size)
                assert await socket.recv() == bytes([n]) * size
            await socket.send("gr\u00fc\u00df dich")
            assert await socket.recv() == "gr\u00fc\u00df dich"
            await asyncio.wait_for(await socket.ping(), 10)

    await asyncio.gather(*[talk(n) for n in range(8)])


if what == "httpx":
    with_httpx()
elif what == "httpx-h2":
    with_httpx_h2()
else:
    asyncio.run(with_aiohttp() if what == "aiohttp" else with_websockets())
print("good")
