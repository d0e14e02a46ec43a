#!/usr/bin/env python3
"""Records what a real Redis answers to the requests of commands-redis.txt.

Usage: record.py PORT < requests > commands-redis.txt

Takes lines `> request` (other lines that do not begin with `#` are dropped: they are old replies), sends each to the
Redis at PORT, whose data it deletes first, and writes it with the reply, in the notation of src/command/tests.rs.
"""

import re
import socket
import sys


def words(line):
    out = []
    for quoted, plain in re.findall(rb'"((?:[^"\\]|\\.)*)"|([^ "]+)', line):
        if plain:
            out.append(plain)
            continue
        unescape = lambda m: bytes([int(m[1], 16)]) if m[1] else {b"n": b"\n"}.get(m[2], m[2])
        out.append(re.sub(rb"\\(?:x([0-9a-f]{2})|(.))", unescape, quoted))
    return out


def escape(data):
    special = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    return '"' + "".join(special.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in data) + '"'


def read(stream):
    line = stream.readline()[:-2]
    kind, rest = line[:1], line[1:]
    if kind in b"+-:":
        return line.decode()
    if kind == b"$":
        if rest == b"-1":
            return "nil"
        data = stream.read(int(rest) + 2)[:-2]
        return escape(data)
    if rest == b"-1":
        return "nil array"
    return "[" + ", ".join(read(stream) for _ in range(int(rest))) + "]"


sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
stream = sock.makefile("rb")
sock.sendall(b"FLUSHALL\r\n")
stream.readline()
for line in sys.stdin.buffer:
    line = line.rstrip(b"\n")
    if line.startswith(b"#") or not line:
        print(line.decode())
    elif line.startswith(b"> "):
        parts = words(line[2:])
        sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        print(line.decode())
        print(read(stream))
