#!/usr/bin/env bash
#
# Real data, three ways in, and kill -9 in the middle.
#
#   examples/real-data.sh
#
# Loads every word of the largest English word list that Debian has, and the record of every package that apt knows
# (several KiB each, with line ends and any punctuation), three times: as lines of text through `nc -N`, as lines through
# `chronos-cli`, and as RESP through `redis-cli --pipe`; each into a database of its own. Reads everything back. Then
# loads other values over it, on all three ways at once, and kills the server with SIGKILL in the middle. Starts it again,
# and holds every key against what it must be: for each way some number of requests, from the first on, has its new
# values, no fewer than were acknowledged, and all the others have their old ones. All values are compared byte for byte.
#
# It builds the release binaries, unless CHRONOS_BIN names a directory that has chronos-server and chronos-cli. Arguments
# go to the server: `examples/real-data.sh --durability 1s` (then what was acknowledged last may be missing, and that is
# an error here). It needs about 1 GB in ${TMPDIR:-/tmp}, and bash, nc, redis-cli, python3 and the word list; it installs
# nothing. Exit status: 0 if all is as it should be, 1 if not, and then the first difference is named.

set -euo pipefail

words=/usr/share/dict/american-english-insane
patience=600 # seconds: what takes longer hangs

fail() {
    printf 'real-data.sh: %s\n' "$*" >&2
    exit 1
}

missing=()
# Other netcats have no -N, or mean something else by it.
nc -h 2>&1 | grep -q OpenBSD || missing+=(netcat-openbsd)
command -v redis-cli > /dev/null || missing+=(redis-tools)
command -v python3 > /dev/null || missing+=(python3)
[[ -r $words ]] || missing+=(wamerican-insane)
command -v apt-cache > /dev/null || fail "the packages come from apt-cache, which only Debian and its relatives have"
((${#missing[@]} == 0)) || fail "please install what is missing: sudo apt-get install ${missing[*]}"

if [[ -n ${CHRONOS_BIN:-} ]]; then
    bin=$(cd "$CHRONOS_BIN" && pwd)
else
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    cargo build --release --quiet --bins
    bin=$PWD/target/release
fi
[[ -x $bin/chronos-server && -x $bin/chronos-cli ]] || fail "no chronos-server and chronos-cli in $bin"

work=$(mktemp -d)
server_pid=
cleanup() {
    # The shell would report the death of its child.
    exec 2> /dev/null
    [[ -z $server_pid ]] || kill -9 "$server_pid" || true
    # Whatever still reads from the server ends with it.
    wait || true
    rm -rf "$work"
}
trap cleanup EXIT

# --- what is loaded, how it is written down, and how it is compared -------------------------------------------------

cat > "$work/data.py" << 'PYTHON'
"""data.py prepare WORDS PACKAGES DIR | data.py compare DIR PORT LOAD ACKNOWLEDGED..."""

import random
import socket
import sys


def items(directory):
    """Key, value of the first load, value of the second; in the order in which they are loaded."""
    with open(f"{directory}/words", "rb") as file:
        words = file.read().splitlines()
    with open(f"{directory}/packages", "rb") as file:
        records = [record for record in file.read().split(b"\n\n") if record.strip()]
    first = {b"word:" + word: b"%d" % number for number, word in enumerate(words, 1)}
    for record in records:
        first[b"package:" + record.split(b"\n", 1)[0].removeprefix(b"Package: ")] = record
    second = {key: b"again " + value if key.startswith(b"word:") else b"Load: 2\n" + value for key, value in first.items()}
    keys = list(first)
    # So that the second load is among words and packages wherever it is cut off.
    random.Random(1).shuffle(keys)
    return [(key, first[key], second[key]) for key in keys]


ESCAPES = {0x22: b'\\"', 0x5C: b"\\\\", 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t"}
ESCAPES = [ESCAPES.get(byte, b"\\x%02x" % byte if byte < 32 or byte == 127 else bytes([byte])) for byte in range(256)]


def line(key, value):
    """A value with line ends must be quoted; any other may follow as it is."""
    if b"\n" in value:
        value = b'"' + b"".join(map(ESCAPES.__getitem__, value)) + b'"'
    return b"SET " + key + b" " + value + b"\n"


def resp(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def prepare(directory):
    """Writes both loads in both dialects, and says what they are."""
    data = items(directory)
    for load in 1, 2:
        with open(f"{directory}/{load}.lines", "wb") as lines, open(f"{directory}/{load}.resp", "wb") as file:
            for item in data:
                lines.write(line(item[0], item[load]))
                file.write(resp(b"SET", item[0], item[load]))
    longest = max(len(value) for _, value, _ in data)
    size = sum(len(key) + len(value) for key, value, _ in data)
    packages = sum(key.startswith(b"package:") for key, _, _ in data)
    print(len(data), packages, size, longest)


class Client:
    def __init__(self, port):
        self.file = socket.create_connection(("127.0.0.1", port), timeout=600).makefile("rwb")

    def ask(self, *words):
        self.file.write(resp(*words))
        self.file.flush()
        return self.reply()

    def reply(self):
        head = self.file.readline()
        kind, rest = head[:1], head[1:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind in (b"+", b":"):
            return rest
        sys.exit(f"the server answers {head!r}")


def differ(database, item, load, is_new):
    """Names a difference: to what should be, or to what is nearer if it is neither."""
    key, found = item[0], item[3]
    if found is None:
        sys.exit(f"database {database}: {key!r} is missing")
    if found in item[1:load + 1]:
        sys.exit(f"database {database}: {key!r} has its {'old' if is_new else 'new'} value and should have the other")

    def common(wanted):
        return next((at for at, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), min(len(found), len(wanted)))

    wanted = max(item[1:load + 1], key=common)
    same = common(wanted)
    sys.exit(
        f"database {database}: {key!r} has {len(found)} bytes, {found[same:same + 40]!r} at byte {same}, "
        f"where {wanted[same:same + 40]!r} should be, of {len(wanted)} bytes"
    )


def compare(directory, port, load, acknowledged):
    """Databases 1, 2, ...: what was acknowledged of this load, perhaps more, and behind that what was there before."""
    data = items(directory)
    client = Client(port)
    for database, owed in enumerate(acknowledged, 1):
        client.ask(b"SELECT", b"%d" % database)
        size = int(client.ask(b"DBSIZE"))
        if size != len(data):
            sys.exit(f"database {database} has {size} keys, not {len(data)}")
        present = None
        for start in range(0, len(data), 500):
            part = data[start:start + 500]
            for at, (item, found) in enumerate(zip(part, client.ask(b"MGET", *(item[0] for item in part))), start):
                if present is None and found != item[load]:
                    # The first that is not new. If it had to be, or is not old either, it is the first difference.
                    if at < owed or load == 1:
                        differ(database, (*item, found), load, is_new=True)
                    present = at
                if present is not None and found != item[load - 1]:
                    differ(database, (*item, found), load, is_new=False)
        print(len(data) if present is None else present)


command, directory = sys.argv[1:3]
if command == "prepare":
    prepare(directory)
else:
    compare(directory, *map(int, sys.argv[3:5]), list(map(int, sys.argv[5:])))
PYTHON

# --- the server ------------------------------------------------------------------------------------------------------

# Starts it on a free port and waits until it is ready.
start() {
    rm -f "$work/log"
    mkfifo "$work/log"
    "$bin/chronos-server" --dir "$work/data" --port 0 "${flags[@]}" 2> "$work/log" &
    server_pid=$!
    local line
    exec {log}< "$work/log"
    port=
    while [[ -z $port ]] && IFS= read -r -t "$patience" -u "$log" line; do
        printf '%s\n' "$line" >> "$work/server.log"
        case $line in
            *recovered*) recovered=$line ;;
            *ready*) port=${line#*addr=127.0.0.1:} port=${port%% *} ;;
        esac
    done
    [[ -n $port ]] || fail "the server did not start: $(tail -n 5 "$work/server.log")"
    # Whatever it has to say later.
    cat <&"$log" >> "$work/server.log" &
    exec {log}<&-
}

# Waits for the end of a server that was told to end.
reap() {
    local status=0
    wait "$server_pid" || status=$?
    server_pid=
    return "$status"
}

# --- the three ways: each writes its replies to a file ---------------------------------------------------------------

through_nc() {
    { echo "SELECT 1"; cat "$work/$1.lines"; } | timeout "$patience" nc -N 127.0.0.1 "$port"
}

through_chronos_cli() {
    timeout "$patience" "$bin/chronos-cli" -p "$port" -n 2 < "$work/$1.lines"
}

through_redis_cli() {
    timeout "$patience" redis-cli -p "$port" -n 3 --pipe < "$work/$1.resp" 2>&1
}

# How many lines of a file are exactly OK. A last line that was cut short is none.
oks() {
    awk '$0 == "OK"' "$1" | wc -l
}

# --- the report ------------------------------------------------------------------------------------------------------

now() {
    printf '%s\n' "${EPOCHREALTIME/[.,]/}" # microseconds
}

# row NAME KEYS BYTES MICROSECONDS
row() {
    awk -v name="$1" -v keys="$2" -v bytes="$3" -v us="$4" 'BEGIN {
        printf "  %-32s %9d keys %8.1f MB %7.1f s %9d keys/s %7.1f MB/s\n",
            name, keys, bytes / 1e6, us / 1e6, keys / us * 1e6, bytes / us
    }'
}

flags=("$@")
cp "$words" "$work/words"
apt-cache dumpavail > "$work/packages"
read -r count packages size longest < <(python3 "$work/data.py" prepare "$work")
((packages > 0)) || fail "apt knows no packages: sudo apt-get update"

printf '%s %s, %s CPUs, %s\n' "$("$bin/chronos-server" --version)" "${flags[*]:-with its defaults}" "$(nproc)" "$(uname -sr)"
printf '%d words and %d package records: %d keys, %d bytes, the longest value %d bytes\n' \
    $((count - packages)) "$packages" "$count" "$size" "$longest"

start
printf '\nfirst load, one way after the other\n'

begun=$(now)
through_nc 1 > "$work/nc.replies" || fail "nc ended with $?"
row "lines through nc -N" "$count" "$size" $(($(now) - begun))
[[ $(oks "$work/nc.replies") == $((count + 1)) ]] || fail "nc: $(grep -vxm 1 OK "$work/nc.replies" || echo 'replies are missing')"

begun=$(now)
through_chronos_cli 1 > "$work/cli.replies" || fail "chronos-cli ended with $?"
row "lines through chronos-cli" "$count" "$size" $(($(now) - begun))
[[ $(oks "$work/cli.replies") == "$count" ]] || fail "chronos-cli: $(grep -vxm 1 OK "$work/cli.replies" || echo 'replies are missing')"

begun=$(now)
through_redis_cli 1 > "$work/redis.replies" || fail "redis-cli ended with $?"
row "RESP through redis-cli --pipe" "$count" "$size" $(($(now) - begun))
grep -qx "errors: 0, replies: $count" "$work/redis.replies" || fail "redis-cli: $(tail -n 3 "$work/redis.replies")"

begun=$(now)
python3 "$work/data.py" compare "$work" "$port" 1 "$count" "$count" "$count" > /dev/null
row "read back, compared by python" $((3 * count)) $((3 * size)) $(($(now) - begun))

printf '\nsecond load, other values, three ways at once, kill -9 in the middle\n'
# Somewhere between a quarter and three quarters, when that many lines have been answered through nc.
cut=$((count / 4 + (RANDOM * 32768 + RANDOM) % (count / 2)))
# Meanwhile nobody needs to hear how everything ends.
exec {stderr}>&2 2> /dev/null
through_chronos_cli 2 > "$work/cli.replies" &
through_redis_cli 2 > "$work/redis.replies" &
through_nc 2 | awk -v cut="$cut" -v pid="$server_pid" '{ print } NR == cut { system("kill -9 " pid) }' \
    > "$work/nc.replies" || true
# If that has gone wrong, nothing must wait for it.
kill -9 "$server_pid" || true
status=0
reap || status=$?
wait || true
exec 2>&"$stderr" {stderr}>&-
((status == 137)) || fail "the server should have been killed, but its exit status is $status"

acknowledged=("$(($(oks "$work/nc.replies") - 1))" "$(oks "$work/cli.replies")" 0)
((acknowledged[0] + 1 >= cut)) || fail "nc ended early, after ${acknowledged[0]} replies"
begun=$(now)
start
printf '  started again in %d ms: %s\n' $((($(now) - begun) / 1000)) "${recovered##*recovered }"

python3 "$work/data.py" compare "$work" "$port" 2 "${acknowledged[@]}" > "$work/present"
mapfile -t present < "$work/present"
names=("lines through nc -N" "lines through chronos-cli" "RESP through redis-cli --pipe")
for way in 0 1; do
    printf '  %-32s %9d keys acknowledged, %9d new, %9d old\n' \
        "${names[way]}" "${acknowledged[way]}" "${present[way]}" $((count - present[way]))
done
# It does not tell what was answered before the end.
printf '  %-32s %9s keys acknowledged, %9d new, %9d old\n' "${names[2]}" '?' "${present[2]}" $((count - present[2]))

kill -TERM "$server_pid"
reap || fail "the server did not end in order: $(tail -n 5 "$work/server.log")"

printf '\nall %d keys are what they should be\n' $((3 * count))
