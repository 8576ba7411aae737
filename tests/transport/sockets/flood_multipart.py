"""Run as a process: an admitted client that sends one message of endless frames."""

import socket
import sys
import threading
import time
from urllib.parse import urlsplit

import zmq

CHUNK_BYTES = 1 << 20
PAUSE_S = 0.01


def main(endpoint: str, public: str, secret: str, server: str, frames: int) -> None:
    with zmq.Context() as context:
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt_string(zmq.CURVE_PUBLICKEY, public)
        dealer.setsockopt_string(zmq.CURVE_SECRETKEY, secret)
        dealer.setsockopt_string(zmq.CURVE_SERVERKEY, server)
        dealer.setsockopt(zmq.RECONNECT_IVL, -1)
        dealer.connect(slowed(endpoint))
        # libzmq hands a message on when its last frame is in; the receiver sees it frame by frame.
        for _ in range(frames):
            dealer.send(bytes(60_000), zmq.SNDMORE)
        dealer.send(b"the end")
        dealer.setsockopt(zmq.LINGER, 20_000)
        print("sent", flush=True)
        sys.stdin.read()


def slowed(endpoint: str) -> str:
    """An endpoint that leads there at the pace of a fast network, 100 MB/s at most.

    Within one machine, a receiver that is kept waiting for a core meets gigabytes when it looks.
    """
    parts = urlsplit(endpoint)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        near, _ = listener.accept()
        far = socket.create_connection((parts.hostname, parts.port))
        threading.Thread(target=forward, args=(far, near), daemon=True).start()
        forward(near, far)

    threading.Thread(target=serve, daemon=True).start()
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def forward(source: socket.socket, sink: socket.socket) -> None:
    """Until either side has hung up."""
    try:
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
            time.sleep(PAUSE_S)
    except ConnectionError:
        pass  # Cut off, as the test expects.
    source.close()
    sink.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
