#!/usr/bin/env python3
"""Chronos and Redis side by side on this machine: the same client, the same requests, in turn, in one run.

    benches/beside_redis.py target/release/chronos-server [--rounds 3] [--durability always|1s] [--only SUBSTRING] [--at-least]

Needs Debian's redis-server and redis-tools. Every write of both is synced before its reply (`appendfsync always`,
`--durability always`) unless --durability 1s (`everysec`). Prints requests per second (median of the rounds), Chronos / Redis, and the goal.
With --at-least it exits 1 when a ratio is under its goal. Absolute figures of one machine mean little: read the ratios.
"""
import argparse, csv, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

#          name                              test  clients pipeline requests  goal (Chronos / Redis)
WORK = [("durable SET, 1 client",            "set",   1,  1,   6000, 1.4),
        ("durable SET, 1 client, 16 deep",   "set",   1, 16,  60000, 1.5),
        ("durable SET, 50 clients",          "set",  50,  1, 100000, 1.2),
        ("durable SET, 50 clients, 16 deep", "set",  50, 16, 400000, 2.2),
        ("durable INCR, 50 clients, 16 deep","incr", 50, 16, 400000, 2.0),
        ("GET, 1 client",                    "get",   1,  1,  40000, 1.3),
        ("GET, 50 clients",                  "get",  50,  1, 150000, 1.1),
        ("GET, 50 clients, 16 deep",         "get",  50, 16, 600000, 1.8)]

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def start(argv, port, log):
    p = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    for _ in range(200):
        if p.poll() is not None:
            sys.exit(f"{argv[0]} ended with {p.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return p
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{argv[0]} does not listen on {port}")

def rate(port, test, clients, deep, n):
    out = subprocess.run(["redis-benchmark", "-p", str(port), "-t", test, "-c", str(clients), "-P", str(deep), "-n", str(n),
                          "-d", "100", "-r", "1000000", "--csv"], capture_output=True, text=True, timeout=300)
    rows = [r for r in csv.reader(out.stdout.splitlines()) if len(r) > 1 and r[0].lower().startswith(test)]
    if not rows:
        sys.exit(f"redis-benchmark said nothing for {test} on {port}: {out.stdout[-300:]} {out.stderr[-300:]}")
    return float(rows[0][1])

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("server"); ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--durability", default="always"); ap.add_argument("--only", default=""); ap.add_argument("--at-least", action="store_true")
    a = ap.parse_args()
    for tool in ("redis-server", "redis-benchmark"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: apt-get install redis-server redis-tools")
    home = tempfile.mkdtemp(prefix="beside-redis-")
    rp, cp, alive, short = free_port(), free_port(), [], []
    try:
        log = open(os.path.join(home, "log"), "w")
        os.mkdir(os.path.join(home, "redis"))
        fsync = "always" if a.durability == "always" else "everysec"
        alive.append(start(["redis-server", "--port", str(rp), "--bind", "127.0.0.1", "--dir", os.path.join(home, "redis"), "--save", "",
                            "--appendonly", "yes", "--appendfsync", fsync, "--auto-aof-rewrite-percentage", "0"], rp, log))
        alive.append(start([a.server, "--port", str(cp), "--dir", os.path.join(home, "chronos"), "--durability", a.durability], cp, log))
        print(f"{'':36}{'chronos/s':>12}{'redis/s':>12}{'ratio':>8}{'goal':>7}")
        for name, test, clients, deep, n, goal in WORK:
            if a.only not in name:
                continue
            got = {cp: [], rp: []}
            for r in range(a.rounds):
                for port in ((cp, rp) if r % 2 == 0 else (rp, cp)):
                    got[port].append(rate(port, test, clients, deep, n))
            c, d = statistics.median(got[cp]), statistics.median(got[rp])
            print(f"{name:36}{c:12.0f}{d:12.0f}{c / d:8.2f}{goal:7.1f}{'' if c / d >= goal else '   short'}", flush=True)
            if c / d < goal:
                short.append(f"{name} {c / d:.2f} < {goal}")
    finally:
        for p in alive:
            p.send_signal(signal.SIGTERM)
        for p in alive:
            try: p.wait(20)
            except subprocess.TimeoutExpired: p.kill()
        shutil.rmtree(home, ignore_errors=True)
    if short and a.at_least:
        print("short: " + "; ".join(short)); sys.exit(1)

main()
