"""A page for a browser: fifty things to fetch, then a websocket; its findings go to standard output as one line of JSON.

usage: browser_origin.py PORT"""
import sys
from aiohttp import web, WSMsgType

# 20 scripts and 20 images as elements, 10 texts by fetch(). Each proves that it came whole: a script adds its
# number, an image has its number as width, a text is its path.
PAGE = """<!DOCTYPE html><meta charset="utf-8"><title>fifty</title><link rel="icon" href="data:,">
<script>
const run = new Set();
const failed = (error) => report({ error: String(error) });
const report = (found) => fetch('/report', { method: 'POST', body: JSON.stringify(found) });
</script>
%s
<script>
function echo(text) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/ws`);
    socket.onopen = () => socket.send(text);
    socket.onerror = () => reject(new Error('the websocket failed'));
    socket.onmessage = (event) => { resolve(event.data); socket.close(1000); };
  });
}
addEventListener('load', async () => {
  try {
    const paths = Array.from({ length: 10 }, (_, n) => `/text/${n}`);
    const texts = await Promise.all(paths.map(async (path) => (await fetch(path)).text()));
    const images = [...document.images].filter((image, n) => image.naturalWidth === n + 1);
    const entries = performance.getEntriesByType('resource');
    const long = 'x'.repeat(100000);
    report({
      page: performance.getEntriesByType('navigation')[0].nextHopProtocol,
      scripts: run.size, images: images.length, texts: texts.filter((text, n) => text === paths[n]).length,
      protocols: entries.filter((entry) => entry.name.startsWith('https:')).map((entry) => entry.nextHopProtocol),
      echo: [await echo('hello'), await echo(long) === long],
    });
  } catch (error) { failed(error); }
});
</script>
""" % "\n".join(f'<script src="/script/{n}"></script><img src="/image/{n + 1}">' for n in range(20))


async def page(request):
    return web.Response(text=PAGE, content_type="text/html")


async def script(request):
    return web.Response(text=f"run.add({int(request.match_info['n'])});", content_type="text/javascript")


async def image(request):
    size = int(request.match_info["n"])
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}"/>'
    return web.Response(text=drawing, content_type="image/svg+xml")


async def text(request):
    return web.Response(text=request.path)


async def report(request):
    print(await request.text(), flush=True)
    return web.Response()


async def websocket(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


app = web.Application()
app.router.add_get("/", page)
app.router.add_get("/script/{n}", script)
app.router.add_get("/image/{n}", image)
app.router.add_get("/text/{n}", text)
app.router.add_post("/report", report)
app.router.add_get("/ws", websocket)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
