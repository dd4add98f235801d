"""The outside world of a host: a name server that knows outside.test, and a server that says who it sees.

Run as a program in a network namespace that has 10.98.0.2; both servers answer until they are killed.
"""

from __future__ import annotations

import socket
import threading

ADDRESS = "10.98.0.2"
NAME = b"\x07outside\x04test\x00"


def answer(query: bytes) -> bytes:
    """The reply to a DNS query (RFC 1035): an A record for outside.test, NXDOMAIN for others."""
    question = query[12 : query.index(b"\0", 12) + 5]
    if question[:-4].lower() != NAME:
        return query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + question
    count = b"\0\1" if question[-4:-2] == b"\0\1" else b"\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\x04" + socket.inet_aton(ADDRESS) if count[1] else b""
    return query[:2] + b"\x81\x80\0\1" + count + b"\0\0\0\0" + question + record


def _names() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((ADDRESS, 53))
        while True:
            query, asker = server.recvfrom(512)
            server.sendto(answer(query), asker)


def main() -> None:
    threading.Thread(target=_names, daemon=True).start()
    with socket.create_server((ADDRESS, 80)) as server:
        while True:
            client, peer = server.accept()
            with client:
                client.sendall(f"seen as {peer[0]}".encode())


if __name__ == "__main__":
    main()
