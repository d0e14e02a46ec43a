#!/usr/bin/env python3
"""What other clients notice of COMPACT: GET and SET latencies on two connections while it runs over many keys.

    benches/during_compact.py target/release/chronos-server [--keys 2000000] [--quiet SECONDS]

Loads the keys (16-byte keys, 100-byte values), measures for some seconds without COMPACT, then while COMPACT runs (twice:
the second one rewrites nothing that an overwrite in between has not touched). Prints percentiles in milliseconds.
Needs nothing but Python. Absolute figures of one machine mean little: compare the quiet row with the other.
"""
import argparse, random, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time

def start(server, home, *more):
    p = subprocess.Popen([server, "--port", "0", "--dir", home, *more], stderr=subprocess.PIPE, text=True)
    for line in p.stderr:
        found = re.search(r"ready.*addr=\S*?:(\d+)", line)
        if found:
            threading.Thread(target=p.stderr.read, daemon=True).start()
            return p, int(found[1])
    sys.exit("the server did not start")

def connect(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s

def resp(*words):
    out = [b"*%d\r\n" % len(words)]
    for w in words:
        out.append(b"$%d\r\n%s\r\n" % (len(w), w))
    return b"".join(out)

def key(n):
    return b"key%013d" % n

def load(port, keys, seed):
    s, rng, batch = connect(port), random.Random(seed), 1000
    replies = s.makefile("rb")
    for first in range(0, keys, batch):
        s.sendall(b"".join(resp(b"SET", key(rng.randrange(keys) if seed else n), rng.randbytes(50).hex().encode())
                           for n in range(first, min(first + batch, keys))))
        for _ in range(first, min(first + batch, keys)):
            assert replies.readline() == b"+OK\r\n"

def measure(port, keys, until, verb, out):
    s, rng = connect(port), random.Random(verb)
    replies = s.makefile("rb")
    while not until():
        k = key(rng.randrange(keys))
        request = resp(b"GET", k) if verb == "GET" else resp(b"SET", k, b"v" * 100)
        before = time.perf_counter()
        s.sendall(request)
        line = replies.readline()
        if line.startswith(b"$") and line != b"$-1\r\n":
            replies.read(int(line[1:]) + 2)
        out.append(time.perf_counter() - before)

def both(port, keys, until):
    got = {"GET": [], "SET": []}
    threads = [threading.Thread(target=measure, args=(port, keys, until, verb, out)) for verb, out in got.items()]
    for t in threads: t.start()
    for t in threads: t.join()
    return got

def show(what, got):
    for verb, seconds in got.items():
        seconds.sort()
        at = lambda p: 1000 * seconds[min(len(seconds) - 1, int(p * len(seconds)))]
        print(f"{what:24}{verb:>5}{len(seconds):>10}{at(.5):>9.2f}{at(.99):>9.2f}{at(.999):>9.2f}{at(1):>9.2f}", flush=True)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("server"); ap.add_argument("--keys", type=int, default=2_000_000); ap.add_argument("--quiet", type=float, default=5)
    a = ap.parse_args()
    home = tempfile.mkdtemp(prefix="during-compact-")
    p, port = start(a.server, home)
    try:
        load(port, a.keys, 0)
        print(f"{'':24}{'':>5}{'requests':>10}{'p50 ms':>9}{'p99':>9}{'p99.9':>9}{'max':>9}")
        end = time.time() + a.quiet
        show("quiet", both(port, a.keys, lambda: time.time() > end))
        for turn in ("first", "after overwriting"):
            done = threading.Event()
            def compact():
                s = connect(port)
                s.sendall(resp(b"COMPACT"))
                before = time.time()
                answer = s.makefile("rb").readline()
                print(f"{answer.decode().strip()} after {time.time() - before:.1f} s")
                done.set()
            threading.Thread(target=compact).start()
            show(f"COMPACT, {turn}", both(port, a.keys, done.is_set))
            if turn == "first":
                load(port, a.keys // 4, 1)
    finally:
        p.send_signal(signal.SIGTERM); p.wait(60)
        shutil.rmtree(home, ignore_errors=True)

main()
