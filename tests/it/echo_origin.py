"""A real origin (aiohttp): echoes bodies, and messages over a websocket at /ws. usage: echo_origin.py PORT"""
import sys
from aiohttp import web, WSMsgType


async def answer(request):
    if request.headers.get("upgrade", "").lower() == "websocket":
        socket = web.WebSocketResponse(max_msg_size=64 << 20)
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket
    body = await request.read()
    return web.Response(body=body or b"ok\n", headers={"X-Origin": "aiohttp", "X-Path": request.path_qs[:200]})


app = web.Application(client_max_size=200 << 20)
app.router.add_route("*", "/{rest:.*}", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
