"""A gRPC server on 127.0.0.1:PORT with nothing but grpc.health.v1, written out by hand: the health package need not be there.

Not called grpc_health, which is what the package would import.
"""

import sys
from concurrent import futures

import grpc

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
SERVICES = {"": SERVING, "shop": SERVING, "closed": NOT_SERVING}


def check(request, context):
    # HealthCheckRequest { string service = 1 }
    service = request[2:].decode() if request else ""
    if service not in SERVICES:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    return SERVICES[service]


method = grpc.unary_unary_rpc_method_handler(check)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method}),))
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
