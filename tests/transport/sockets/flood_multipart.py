"""Run as a process: an admitted client that sends one message of endless frames."""

import sys

import zmq


def main(endpoint: str, public: str, secret: str, server: str, frames: int) -> None:
    with zmq.Context() as context:
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt_string(zmq.CURVE_PUBLICKEY, public)
        dealer.setsockopt_string(zmq.CURVE_SECRETKEY, secret)
        dealer.setsockopt_string(zmq.CURVE_SERVERKEY, server)
        dealer.setsockopt(zmq.RECONNECT_IVL, -1)
        dealer.connect(endpoint)
        # libzmq hands a message on when its last frame is in; the receiver sees it frame by frame.
        for _ in range(frames):
            dealer.send(bytes(60_000), zmq.SNDMORE)
        dealer.send(b"the end")
        dealer.setsockopt(zmq.LINGER, 20_000)
        print("sent", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
