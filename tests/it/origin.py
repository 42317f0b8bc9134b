"""An origin in a process of its own, to be killed, frozen and slowed. usage: origin.py PORT NAME

Answers every request with its name. `POST /delay/MS` makes each later answer, the health check's too, wait so long.
"""
import socketserver, sys, time
from http.server import BaseHTTPRequestHandler

delay = 0.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        time.sleep(delay)
        self.say(sys.argv[2])

    def do_POST(self):
        global delay
        delay = int(self.path.rsplit("/", 1)[1]) / 1000
        self.say("delay")

    def say(self, text):
        body = text.encode() + b"\n"
        self.send_response(200)
        self.send_header("X-Origin", sys.argv[2])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # a peer that goes away in the middle is its own affair


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
