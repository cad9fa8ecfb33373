"""The way out for programs that know no HTTP proxy, such as ssh: a CONNECT on stdin and stdout.

ProxyCommand python -I -S -B connect.py PROXY_PORT %h %p
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from threading import Thread

CHUNK = 64 * 1024


def open_tunnel(proxy_port: int, host: str, port: str) -> socket.socket:
    """Ends the program with what the proxy says, when it opens none."""
    try:
        proxy = socket.create_connection(("127.0.0.1", proxy_port))
    except OSError as error:
        sys.exit(f"the way out of this sandbox does not answer: {error.strerror}")
    name = f"[{host}]" if ":" in host else host
    proxy.sendall(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
    head = read_head(proxy)
    if head.split(b" ")[1:2] != [b"200"]:
        said = proxy.makefile("rb").read(CHUNK)
        sys.exit((said or head).decode(errors="replace").strip() or "the way out is closed")
    return proxy


def read_head(proxy: socket.socket) -> bytes:
    """Byte by byte: what comes after it is the server's."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < CHUNK:
        byte = proxy.recv(1)
        if not byte:
            break
        head += byte
    return head


def send(proxy: socket.socket) -> None:
    """Standard input, to its end. A connection that broke is told by `receive`."""
    with suppress(OSError):
        while data := os.read(0, CHUNK):
            proxy.sendall(data)
        proxy.shutdown(socket.SHUT_WR)


def receive(proxy: socket.socket) -> None:
    while data := proxy.recv(CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


def main() -> None:
    proxy = open_tunnel(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    Thread(target=send, args=[proxy], daemon=True).start()
    try:
        receive(proxy)
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)
    os._exit(0)  # not held up by the thread, which may wait for input


if __name__ == "__main__":
    main()
