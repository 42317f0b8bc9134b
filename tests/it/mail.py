"""A mail server (aiosmtpd) on 127.0.0.1:PORT that prints every letter it gets."""

import sys

from aiosmtpd.controller import Controller


class Handler:
    async def handle_DATA(self, server, session, envelope):
        print(envelope.content.decode(), flush=True)
        return "250 taken"


controller = Controller(Handler(), hostname="127.0.0.1", port=int(sys.argv[1]))
controller.start()
# Until the test ends this process.
controller._thread.join()
