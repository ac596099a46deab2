# What http.sh and peers.sh share: the same keyed requests by wrk to several kinds of handler, in rounds.
#
# Each server is one process with one thread; wrk has a core of its own if there are two. Each round runs all kinds, and
# each comparison is the median over the rounds of the comparison within a round, so that other load on the machine cancels
# out. The servers' processor time per request is from /proc, in user mode and in the kernel: it does not depend on whether
# wrk kept the server busy. Compare user time: where the server is slower wrk falls asleep, and the server's kernel time
# pays for waking it.
#
# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034 # the expressions are awk's, and the sizes are for the scripts

rounds=${ROUNDS:-7}
seconds=${SECONDS_EACH:-2}
connections=${CONNECTIONS:-32}
read -ra sizes <<<"${SIZES:-32 1024}"

for tool in wrk awk; do
    command -v "$tool" >/dev/null || { echo "error: please install $tool (apt-get install $tool)" >&2; exit 1; }
done

# The servers on the last core and wrk on the first, if there are two and `taskset` can choose them.
on_first=() on_last=()
if command -v taskset >/dev/null && (($(nproc) > 1)); then
    on_first=(taskset -c 0) on_last=(taskset -c "$(($(nproc) - 1))")
fi

work=$(mktemp -d)
declare -A pid_of address_of
trap 'kill "${pid_of[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

# serve SERVER COMMAND…: starts a server, whose first line of output is its address.
serve() {
    local server=$1
    shift
    "${on_last[@]}" "$@" >"$work/$server.address" &
    pid_of[$server]=$!
    for _ in {1..100}; do [[ -s $work/$server.address ]] && break; sleep 0.05; done
    address_of[$server]=$(<"$work/$server.address")
    [[ -n ${address_of[$server]} ]] || { echo "error: $* did not start in five seconds" >&2; return 1; }
}

# kind NAME SERVER ROUTE [repeat]: what is compared, the bare handler first. With `repeat` all requests have one key.
kinds=()
declare -A server_of route_of repeated
kind() {
    kinds+=("$1")
    server_of[$1]=$2 route_of[$1]=$3 repeated[$1]=${4:-}
}

# Clock ticks that a server has used, in user mode and in the kernel.
ticks() { awk '{ print $14, $15 }' "/proc/${pid_of[$1]}/stat"; }

# With `sessions=true` each key comes with the cookie of a session.
sessions=false
declare -A number_of=()

# send KIND SIZE ROUND [VARIABLE…]: runs wrk once, with these variables of wrk.lua beside its usual ones.
send() {
    local kind=$1 size=$2 series="$2-$3" variables=("${@:4}")
    # The key of the repeated requests stays the same, so that after the first round, which is not measured, all are replays.
    if [[ ${repeated[$kind]} ]]; then
        series="$size-repeated"
        variables+=(REPEAT=1)
    fi
    if $sessions; then
        number_of[$series]=${number_of[$series]:-${#number_of[@]}}
        variables+=(SESSION="$(printf %04d "${number_of[$series]}")")
    fi
    env ROUTE="${route_of[$kind]}" SIZE="$size" SERIES="$series" "${variables[@]}" \
        "${on_first[@]}" wrk -t1 -c"$connections" -d"${seconds}s" -s bench/wrk.lua \
        "http://${address_of[${server_of[$kind]}]}" >"$work/wrk"
}

# check KIND SIZE: the round before the first, which sees whether a kind is what it is called. The first requests with a key
# may meet in flight, and be executed or refused.
check() {
    send "$1" "$2" unmeasured CHECK=1
    awk -v kind="$1" -v repeated="${repeated[$1]}" '
        function fail(what) { print "error: " kind ": " what > "/dev/stderr"; bad = 1; exit 1 }
        $1 == "RESULT" { seen = 1 }
        $1 == "RESULT" && !repeated && $4 > 0 { fail($4 " of " $2 " requests failed") }
        $1 == "RESULT" && !repeated && $5 > 0 { fail($5 " of " $2 " requests with keys of their own were replayed") }
        $1 == "RESULT" && repeated && $5 < $2 * 0.9 { fail("only " $5 " of " $2 " requests with one key were replayed") }
        END { if (!seen && !bad) fail("wrk printed no result") }' "$work/wrk"
}

# run KIND SIZE ROUND -> "requests-per-second user-us-per-request kernel-us-per-request"
run() {
    local server=${server_of[$1]} before after
    before=$(ticks "$server")
    send "$1" "$2" "$3"
    after=$(ticks "$server")
    awk -v before="$before" -v after="$after" -v hz="$(getconf CLK_TCK)" '
        BEGIN { split(before, b, " "); split(after, a, " ") }
        function each(at, requests) { return (a[at] - b[at]) / hz * 1e6 / requests }
        $1 == "RESULT" && $4 > 0 { print "error: " $4 " requests failed" > "/dev/stderr"; exit 1 }
        $1 == "RESULT" { printf "%.0f %.3f %.3f\n", $2 * 1e6 / $3, each(1, $2), each(2, $2) }' "$work/wrk"
}

# measure SIZE: all rounds of all kinds, into a file for each kind.
measure() {
    local kind round at
    for kind in "${kinds[@]}"; do
        rm -f "$work/$kind"
        check "$kind" "$1"
    done
    for ((round = 0; round < rounds; round++)); do
        # Each round starts with another kind.
        for ((at = 0; at < ${#kinds[@]}; at++)); do
            kind=${kinds[(round + at) % ${#kinds[@]}]}
            run "$kind" "$1" "$round" >>"$work/$kind"
        done
    done
}

median() { sort -g | awk '{ line[NR] = $1 } END { print line[int((NR + 1) / 2)] }'; }

# across EXPRESSION KIND…: the median over the rounds of an expression of awk, in which $1 to $3 are the first kind's
# numbers as `run` prints them, $4 to $6 the second's, and so on.
across() {
    local expression=$1
    shift
    (cd "$work" && paste "$@") | awk "{ print ($expression) }" | median
}

# beyond OURS THEIRS: what ours costs beyond bare in user time, in relation to theirs. "inf" if theirs cost nothing.
beyond() { across '$8 > $2 ? ($5 - $2) / ($8 - $2) : "inf"' bare "$@"; }

# header SIZE: what the lines of `report` mean.
header() {
    printf '\n%s-byte JSON body, median of %s rounds of %ss; times in microseconds a request\n' "$1" "$rounds" "$seconds"
    printf '%-25s %9s %7s %7s %7s %12s %12s\n' "" req/s ratio user kernel "user beyond" "all to bare"
}

# report KIND [TARGET]: the medians of one kind, and how they compare with bare in the same round.
report() {
    local expression value values=()
    for expression in '$4' '$4 / $1' '$5' '$6' '$5 - $2' '($5 + $6) / ($2 + $3)'; do
        value=$(across "$expression" bare "$1")
        values+=("$value")
    done
    printf '%-25s %9.0f %7.2f %7.2f %7.2f %12.2f %12.2f   %s\n' "$1" "${values[@]}" "${2:-}"
}
