#!/usr/bin/env bash
# Requests per second over real TCP on 127.0.0.1: the bare handler, first executions and replays, alternately.
#
#   bash bench/http.sh                      7 rounds of 2 seconds for each kind and body size
#   ROUNDS=15 SECONDS_EACH=4 bash bench/http.sh
#
# One server process with one thread serves all routes; wrk has a core of its own if there are two. Each round runs all
# three kinds, and each ratio is the median over the rounds of the ratio within a round, so that other load on the
# machine cancels out. Every kind is sent the same keyed requests; the bare handler ignores the keys. The server's
# processor time per request, from /proc, is printed too, in user mode and in the kernel: it does not depend on whether wrk
# kept the server busy. Compare user time: where the server is slower wrk falls asleep, and the server's kernel time pays
# for waking it.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-7}
seconds=${SECONDS_EACH:-2}
connections=${CONNECTIONS:-32}

for tool in wrk awk; do
    command -v "$tool" >/dev/null || { echo "error: please install $tool (apt-get install $tool)" >&2; exit 1; }
done

cargo build --quiet --release -p idempotent-bench --example bench_server
server="${CARGO_TARGET_DIR:-target}/release/examples/bench_server"

# The server on the last core and wrk on the first, if there are two and `taskset` can choose them.
on_first=() on_last=()
if command -v taskset >/dev/null && (($(nproc) > 1)); then
    on_first=(taskset -c 0) on_last=(taskset -c "$(($(nproc) - 1))")
fi

work=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
"${on_last[@]}" "$server" >"$work/address" &
pid=$!
for _ in {1..100}; do [[ -s $work/address ]] && break; sleep 0.05; done
address=$(<"$work/address")

# Clock ticks that the server has used, in user mode and in the kernel.
ticks() { awk '{ print $14, $15 }' "/proc/$pid/stat"; }

# run KIND SIZE SERIES -> "requests-per-second user-us-per-request kernel-us-per-request"
run() {
    local route=/short-lived repeat=() before after
    case $1 in
        bare) route=/bare ;;
        replay) repeat=(REPEAT=1) ;;
    esac
    before=$(ticks)
    env ROUTE=$route SIZE="$2" SERIES="$3" "${repeat[@]}" \
        "${on_first[@]}" wrk -t1 -c"$connections" -d"${seconds}s" -s bench/wrk.lua "http://$address" >"$work/wrk"
    after=$(ticks)
    awk -v before="$before" -v after="$after" -v hz="$(getconf CLK_TCK)" '
        BEGIN { split(before, b, " "); split(after, a, " ") }
        function each(at, requests) { return (a[at] - b[at]) / hz * 1e6 / requests }
        $1 == "RESULT" && $4 > 0 { print "error: " $4 " requests failed" > "/dev/stderr"; exit 1 }
        $1 == "RESULT" { printf "%.0f %.3f %.3f\n", $2 * 1e6 / $3, each(1, $2), each(2, $2) }' "$work/wrk"
}

median() { sort -g | awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'; }

# report NAME TARGET: the medians of one kind, and how they compare with bare in the same round
report() {
    local file="$work/$1"
    both() { paste "$work/bare" "$file" | awk "{ print $1 }" | median; }
    printf '%-7s %9.0f %7.2f %10.2f %9.2f %12.2f %12.2f   %s\n' "$1" \
        "$(awk '{ print $1 }' "$file" | median)" "$(both '$4 / $1')" \
        "$(awk '{ print $2 }' "$file" | median)" "$(awk '{ print $3 }' "$file" | median)" \
        "$(both '$5 - $2')" "$(both '($5 + $6) / ($2 + $3)')" "$2"
}

kinds=(bare first replay)
for size in 32 1024; do
    rm -f "$work/bare" "$work/first" "$work/replay"
    for kind in "${kinds[@]}"; do run "$kind" "$size" "warm-$size-$kind" >/dev/null; done
    for ((round = 0; round < rounds; round++)); do
        # Each round starts with another kind.
        for ((at = 0; at < 3; at++)); do
            kind=${kinds[(round + at) % 3]}
            run "$kind" "$size" "$size-$round-$kind" >>"$work/$kind"
        done
    done
    printf '\n%s-byte JSON body, median of %s rounds of %ss; times in microseconds a request\n' "$size" "$rounds" "$seconds"
    echo "            req/s   ratio       user    kernel   user beyond    all to bare"
    report bare ""
    report first "target: 1.2 beyond, 1.25 to bare"
    report replay "target: 0.6 beyond, 1.10 to bare"
done
