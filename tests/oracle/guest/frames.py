"""Packets as clients and servers send them, and what comes out of the director."""

import socket
import struct
import time

TCP, UDP, ICMP, IPIP = 6, 17, 1, 4
FIN, SYN, RST, ACK = 1, 2, 4, 16
ETH_P_IP = 0x0800
SO_MARK = 36


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source, destination, protocol, payload):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(destination)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def transport(protocol, source, source_port, destination, destination_port, flags):
    """An IP packet; of TCP without payload, of UDP with four bytes of it."""
    if protocol == TCP:
        body = struct.pack("!HHIIBBHHH", source_port, destination_port, 1, 1 if flags & ACK else 0, 0x50, flags, 8192, 0, 0)
        at = 16
    else:
        body = struct.pack("!HHHH", source_port, destination_port, 12, 0) + b"ping"
        at = 6
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", protocol, len(body))
    body = body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]
    return ip(source, destination, protocol, body)


class Seen:
    """A packet that came out: to whom, from whom."""

    def __init__(self, frame):
        self.link = frame[:6]
        packet = frame[14:]
        self.protocol = packet[9]
        self.source, self.destination = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        self.ports = struct.unpack("!HH", packet[20:24])
        self.right = self.sums(packet)

    def sums(self, packet):
        """Are the checksums right?"""
        if checksum(packet[:20]):
            return False
        body = packet[20 : struct.unpack("!H", packet[2:4])[0]]
        if self.protocol not in (TCP, UDP):
            return True
        return not checksum(packet[12:20] + struct.pack("!HH", self.protocol, len(body)) + body)


class Wire:
    """The far end of one of the director's interfaces."""

    def __init__(self, device, director, own):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        self.socket.bind((device, ETH_P_IP))
        self.socket.setblocking(False)
        self.head = director + own + struct.pack("!H", ETH_P_IP)
        self.mark = 0

    def send(self, packet, mark=0):
        if mark != self.mark:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            self.mark = mark
        self.socket.send(self.head + packet)

    def seen(self):
        try:
            return Seen(self.socket.recv(2048))
        except BlockingIOError:
            return None


def arrived(*wires):
    """What has come out after a packet went in, and by which wire. It has mostly by now, for there is one processor; else the kernel
    wants a moment for itself. Nothing within 10 ms of the machine's time is nothing."""
    for _ in range(5):
        came = [(wire, frame) for wire in wires for frame in iter(wire.seen, None)]
        if came:
            return came
        time.sleep(0.002)
    return []
