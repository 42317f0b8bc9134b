"""RTSP over WebSocket (ONVIF Streaming Specification 5.1.1.5), both ends.

  rtsp_websocket.py bridge PORT SERVER-PORT   a camera's side (aiohttp): binary frames to an RTSP server and back
  rtsp_websocket.py play ADDRESS PATH FRAMES  a viewer's side (websockets): plays so many frames of media, waits for
                                              a line of input, and takes leave; says what it had
"""

import asyncio
import sys

PROTOCOL = "rtsp.onvif.org"


def bridge(port, server_port):
    from aiohttp import WSMsgType, web

    async def answer(request):
        socket = web.WebSocketResponse(protocols=[PROTOCOL])
        await socket.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server_port))

        async def back():
            # Frames of WebSocket have nothing to do with where messages begin.
            while data := await reader.read(3000):
                await socket.send_bytes(data)
            await socket.close()

        task = asyncio.create_task(back())
        async for message in socket:
            if message.type == WSMsgType.BINARY:
                writer.write(message.data)
        writer.close()
        await task
        return socket

    app = web.Application()
    app.router.add_get("/rtsp-over-websocket", answer)
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None)


async def play(address, path, count):
    from websockets.asyncio.client import connect

    async with connect(f"ws://{address}{path}", subprotocols=[PROTOCOL]) as socket:
        assert socket.subprotocol == PROTOCOL, socket.subprotocol
        held, number = b"", 0

        async def more():
            nonlocal held
            data = await socket.recv()
            assert isinstance(data, bytes), data
            held += data

        async def frame():
            nonlocal held
            while len(held) < 4 or len(held) < 4 + int.from_bytes(held[2:4], "big"):
                await more()
            assert held[:1] == b"$", held[:40]
            end = 4 + int.from_bytes(held[2:4], "big")
            channel, data = held[1], held[4:end]
            held = held[end:]
            return channel, data

        async def ask(method, *fields):
            nonlocal held, number
            number += 1
            lines = [f"{method} rtsp://camera/cam/track1 RTSP/1.0", f"CSeq: {number}", *fields, "", ""]
            await socket.send("\r\n".join(lines).encode())
            while b"\r\n\r\n" not in held:
                await more()
            head, held = held.split(b"\r\n\r\n", 1)
            lines = head.decode().split("\r\n")
            assert lines[0].endswith(" 200 OK") and f"CSeq: {number}" in lines, lines
            return dict(line.split(": ", 1) for line in lines[1:])

        told = await ask("SETUP", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        session = told["Session"].split(";")[0]
        await ask("PLAY", f"Session: {session}")
        for at in range(count):
            channel, data = await frame()
            assert channel == at % 2 and data.startswith(f"{session} {at} ".encode()), (channel, at, data[:40])
        print("played", count, flush=True)
        # The loop goes on meanwhile: it answers whatever keeps the connection.
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await ask("TEARDOWN", f"Session: {session}")
    print("left", flush=True)


if sys.argv[1] == "bridge":
    bridge(sys.argv[2], sys.argv[3])
else:
    asyncio.run(play(sys.argv[2], sys.argv[3], int(sys.argv[4])))
