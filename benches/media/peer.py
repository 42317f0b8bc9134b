"""Both ends of benches/media: a server of RTSP that sends what costs it nothing to make, and viewers that throw it away.

  peer.py origin HOST PORT RATE      RATE is bit/s of a session on its connection, 0 as fast as it is taken; of sessions by
                                     UDP, packets a second of all together
  peer.py viewers HOST PORT SESSIONS SECONDS UDP

The viewers say `playing` when all of them play, and after that time how many bytes or packets came.
"""

import re
import selectors
import socket
import sys
import threading
import time

FRAME = b"$\x00" + (1400).to_bytes(2, "big") + bytes(1400)
BLOCK = FRAME * 180
PACKET = bytes(1200)


def head(stream, held):
    """The next message's head, and what came behind it."""
    while b"\r\n\r\n" not in held:
        more = stream.recv(65536)
        if not more:
            raise EOFError
        held += more
    text, _, rest = held.partition(b"\r\n\r\n")
    return text.decode(), rest


class Origin:
    def __init__(self, host, port, rate):
        self.rate, self.udp, self.lock = rate, [], threading.Lock()
        threading.Thread(target=self.send_packets, daemon=True).start()
        listener = socket.create_server((host, port), backlog=256)
        while True:
            stream, peer = listener.accept()
            threading.Thread(target=self.attend, args=(stream, peer), daemon=True).start()

    def attend(self, stream, peer):
        held, media = b"", None
        try:
            while True:
                text, held = head(stream, held)
                number = re.search(r"(?i)cseq: *(\d+)", text)[1]
                method = text.split(" ", 1)[0]
                fields = ""
                if method == "SETUP":
                    transport = re.search(r"(?i)transport: *([^\r\n]*)", text)[1]
                    if port := re.search(r"client_port=(\d+)", transport):
                        media = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                        media.bind((stream.getsockname()[0], 0))
                        media.connect((peer[0], int(port[1])))
                        mine = media.getsockname()[1]
                        transport += f";server_port={mine}-{mine + 1}"
                    fields = f"Transport: {transport}\r\nSession: {id(stream):x}\r\n"
                stream.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{fields}\r\n".encode())
                if method == "PLAY" and media:
                    with self.lock:
                        self.udp.append(media)
                elif method == "PLAY":
                    self.send_frames(stream)
        except (OSError, EOFError, TypeError):
            pass
        with self.lock:
            if media in self.udp:
                self.udp.remove(media)

    def send_frames(self, stream):
        pause = len(FRAME) * 8 / self.rate if self.rate else 0
        due = time.monotonic()
        while True:
            stream.sendall(FRAME if pause else BLOCK)
            if pause:
                due += pause
                time.sleep(max(0, due - time.monotonic()))

    def send_packets(self):
        """In turn to everybody who plays."""
        due = time.monotonic()
        while True:
            with self.lock:
                everybody = list(self.udp)
            if not everybody:
                time.sleep(0.005)
                due = time.monotonic()
                continue
            for media in everybody:
                try:
                    media.send(PACKET)
                except OSError:
                    pass
            due += len(everybody) / self.rate
            time.sleep(max(0, due - time.monotonic()))


def viewers(host, port, sessions, seconds, udp):
    all_, media = [], []
    for number in range(sessions):
        stream = socket.create_connection((host, port))
        transport = f"RTP/AVP/TCP;unicast;interleaved=0-1"
        if udp:
            local = stream.getsockname()[0]
            while True:
                one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                one.bind((local, 0))
                if one.getsockname()[1] % 2 == 0:
                    break
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            media.append(one)
            transport = f"RTP/AVP;unicast;client_port={one.getsockname()[1]}-{one.getsockname()[1] + 1}"
        url = f"rtsp://{host}:{port}/s{number}"
        stream.sendall(f"SETUP {url}/track1 RTSP/1.0\r\nCSeq: 1\r\nTransport: {transport}\r\n\r\n".encode())
        text, _ = head(stream, b"")
        session = re.search(r"(?i)session: *([^;\r\n]*)", text)
        if not session:
            sys.exit(f"SETUP {number} is answered with: {text!r}")
        all_.append((stream, url, session[1]))
    for stream, url, session in all_:
        stream.sendall(f"PLAY {url} RTSP/1.0\r\nCSeq: 2\r\nSession: {session}\r\n\r\n".encode())
    chooser = selectors.DefaultSelector()
    for one in media or [stream for stream, *_ in all_]:
        one.setblocking(False)
        chooser.register(one, selectors.EVENT_READ)
    buffer = bytearray(1 << 20)

    def take(until):
        count = 0
        while (left := until - time.monotonic()) > 0:
            for key, _ in chooser.select(left):
                try:
                    got = key.fileobj.recv_into(buffer)
                except BlockingIOError:
                    continue
                count += 1 if udp else got
        return count

    take(time.monotonic() + 0.5)
    print("playing", flush=True)
    print(take(time.monotonic() + seconds), flush=True)
    # Else the next round's find that this client has its share of streams already.
    for stream, url, session in all_:
        stream.setblocking(True)
        stream.sendall(f"TEARDOWN {url} RTSP/1.0\r\nCSeq: 3\r\nSession: {session}\r\n\r\n".encode())
    if udp:
        for stream, *_ in all_:
            head(stream, b"")


if __name__ == "__main__":
    kind, host, port, *rest = sys.argv[1:]
    if kind == "origin":
        Origin(host, int(port), int(rest[0]))
    else:
        viewers(host, int(port), int(rest[0]), float(rest[1]), int(rest[2]))
