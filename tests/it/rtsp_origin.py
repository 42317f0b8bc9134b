"""An RTSP server as they come: gst-rtsp-server with moving test pictures. Run by the distribution's python3.

  rtsp_origin.py --address 10.77.2.11 --name one --size 160x120 [--port 8554] [--timeout 20] [--audio]
                 [--digest USER:PASSWORD | --basic USER:PASSWORD] [--tls CERTIFICATE KEY]

/test, /cam0 to /cam7 and, with other pictures, /vod make a stream for each viewer, /jpeg is the second codec, /rec and
/rec2 take what is published. No stream is shared: this library now and then aborts when one viewer of a shared stream
leaves while another comes (gst_rtsp_media_get_rates). Clients may use UDP, TCP and HTTP tunnels. Each event is a line: `ready NAME`, `METHOD PATH`,
`open ADDRESS`, `closed ADDRESS`, `recorded PATH N` after each ten pictures published there, N from each publisher's first.
"""

import argparse
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

Lower = GstRtsp.RTSPLowerTrans
REQUESTS = (
    "options describe setup play pause teardown get-parameter set-parameter announce record".split()
)


def say(*words):
    # In one piece: signals come from several threads.
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", default="8554")
    parser.add_argument("--name", default="origin")
    parser.add_argument("--size", default="160x120")
    parser.add_argument("--timeout", type=int, default=60, help="of a session, in seconds")
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--digest")
    parser.add_argument("--basic")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    return parser.parse_args()


def video(asked, pattern, encoder):
    width, height = asked.size.split("x")
    caps = f"video/x-raw,width={width},height={height},framerate=15/1"
    text = f"videotestsrc is-live=true pattern={pattern} ! {caps} ! {encoder}"
    if asked.audio:
        text += " audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0"
    return f"( {text} )"


H264 = (
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=200 threads=1"
    " ! rtph264pay name=pay0 pt=96 config-interval=1"
)
JPEG = "jpegenc ! rtpjpegpay name=pay0 pt=26"
RECORDED = "( rtph264depay name=depay0 ! identity name=count signal-handoffs=true ! fakesink )"


def count(path, media):
    """Says how many pictures a publisher has brought."""
    pictures = 0

    def one(*_):
        nonlocal pictures
        pictures += 1
        if pictures % 10 == 0:
            say("recorded", path, pictures)

    media.get_element().get_by_name("count").connect("handoff", one)


def factory(asked, launch, record=None):
    made = GstRtspServer.RTSPMediaFactory.new()
    made.set_launch(launch)
    made.set_protocols(Lower.UDP | Lower.TCP | Lower.UDP_MCAST)
    if record:
        made.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        made.connect("media-configure", lambda _factory, media: count(record, media))
    if asked.digest or asked.basic or asked.tls:
        made.add_role_from_structure(
            Gst.Structure.from_string("user, media.factory.access=(boolean)true, media.factory.construct=(boolean)true")[0]
        )
    return made


def authority(asked):
    """Passwords and TLS stand in one object; with TLS alone, everybody has the role of a user."""
    if not (asked.digest or asked.basic or asked.tls):
        return None
    auth = GstRtspServer.RTSPAuth.new()
    token = GstRtspServer.RTSPToken.new()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
    if asked.digest:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(*asked.digest.split(":", 1), token)
    elif asked.basic:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*asked.basic.split(":", 1)), token)
    else:
        auth.set_default_token(token)
    if asked.tls:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(*asked.tls))
    return auth


def watch(server, client):
    address = client.get_connection().get_ip()
    say("open", address)
    for name in REQUESTS:
        def asked(_client, context, name=name):
            say(name.upper().replace("-", "_"), context.uri.abspath if context.uri else "*")

        client.connect(f"{name}-request", asked)
    client.connect("closed", lambda _client: say("closed", address))


def main():
    asked = options()
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address(asked.address)
    server.set_service(asked.port)
    mounts = server.get_mount_points()
    for path in ["test", *(f"cam{n}" for n in range(8))]:
        mounts.add_factory(f"/{path}", factory(asked, video(asked, "ball", H264)))
    mounts.add_factory("/vod", factory(asked, video(asked, "smpte", H264)))
    mounts.add_factory("/jpeg", factory(asked, video(asked, "ball", JPEG)))
    for path in ("/rec", "/rec2"):
        mounts.add_factory(path, factory(asked, RECORDED, record=path))
    auth = authority(asked)
    if auth:
        server.set_auth(auth)
    sessions = server.get_session_pool()

    def clean():
        # The library leaves it to its user to end sessions that timed out.
        sessions.cleanup()
        return True

    GLib.timeout_add_seconds(2, clean)
    server.connect(
        "client-connected",
        lambda server, client: (
            watch(server, client),
            client.connect("new-session", lambda _client, session: session.set_timeout(asked.timeout)),
        ),
    )
    if not server.attach(None):
        sys.exit(f"cannot listen at {asked.address}:{asked.port}")
    say("ready", asked.name)
    loop = GLib.MainLoop()
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, loop.quit)
    loop.run()


main()
