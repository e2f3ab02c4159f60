"""Whether machines reach each other's ports: `listen` on one, `connect` on the others, at the same time."""

import errno
import json
import select
import socket
import sys
import threading
import time

GREETING = b"taskrun"


def listen(plan):
    """Answers on each port until everybody who is expected was there, or the time is over."""
    deadline = time.monotonic() + plan["seconds"]
    tcp, udp, taken = [], [], []
    for kind, ports, found in ((socket.SOCK_STREAM, plan["tcp"], tcp), (socket.SOCK_DGRAM, plan["udp"], udp)):
        for port in ports:
            listener = socket.socket(socket.AF_INET, kind)
            if kind == socket.SOCK_STREAM:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("0.0.0.0", port))
                if kind == socket.SOCK_STREAM:
                    listener.listen(64)
                listener.setblocking(False)
                found.append(listener)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                listener.close()
                taken.append([port, "tcp" if kind == socket.SOCK_STREAM else "udp"])
    seen, expected = set(), plan["peers"] * len(tcp + udp)
    while time.monotonic() < deadline and len(seen) < expected:
        for ready in select.select(tcp + udp, [], [], 0.2)[0]:
            try:
                if ready in tcp:
                    connection, peer = ready.accept()
                    connection.close()
                else:
                    data, peer = ready.recvfrom(64)
                    ready.sendto(data, peer)
                seen.add((peer[0], ready.getsockname()[1], ready in udp))
            except OSError:
                pass
    # The last answer may have been lost, and is asked for again.
    end = min(deadline, time.monotonic() + 1)
    while udp and time.monotonic() < end:
        for ready in select.select(udp, [], [], 0.1)[0]:
            try:
                data, peer = ready.recvfrom(64)
                ready.sendto(data, peer)
            except OSError:
                pass
    print(json.dumps({"taken": taken}))


def try_tcp(address, port, end):
    """Refused is tried again: the other side may not have begun to listen."""
    while True:
        left = end - time.monotonic()
        if left <= 0:
            return "no_answer"
        try:
            socket.create_connection((address, port), timeout=left).close()
            return "works"
        except socket.timeout:
            return "no_answer"
        except OSError as error:
            if error.errno == errno.ETIMEDOUT:
                return "no_answer"
            verdict = "refused" if error.errno == errno.ECONNREFUSED else "no_route"
        if time.monotonic() + 0.3 >= end:
            return verdict
        time.sleep(0.3)


def try_udp(address, port, end):
    verdict = "no_answer"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0.3)
        while time.monotonic() < end:
            try:
                sender.connect((address, port))
                sender.send(GREETING)
                if sender.recv(64) == GREETING:
                    return "works"
            except socket.timeout:
                verdict = "no_answer"
            except OSError as error:
                verdict = "refused" if error.errno == errno.ECONNREFUSED else "no_route"
                time.sleep(0.3)
    return verdict


def connect(plan):
    """One line for each way: address, port, protocol, what came of it."""
    end = time.monotonic() + plan["seconds"]
    lines, threads = [], []

    def go(address, port, protocol):
        attempt = try_tcp if protocol == "tcp" else try_udp
        lines.append([address, port, protocol, attempt(address, port, end)])

    for address, port, protocol in plan["ways"]:
        threads.append(threading.Thread(target=go, args=(address, port, protocol)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    print(json.dumps(lines))


if __name__ == "__main__":
    {"listen": listen, "connect": connect}[sys.argv[1]](json.loads(sys.argv[2]))
