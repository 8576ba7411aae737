"""ZeroMQ on asyncio: CURVE keys, admission by ZAP, and the two kinds of sockets."""
