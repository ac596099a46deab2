# The functions of try.sh: requests and responses, demos, verdicts.
#
# A background process, which is a request or a demo, has a slot: its process id is in PID_<slot> until it has been
# waited for. These processes, and no others, are killed when the script ends early.

# How often an event is polled for, every tenth of a second, before it counts as missing.
readonly TRIES=600
# How long a request may take, in seconds.
readonly REQUEST_TIMEOUT=90

# The demo's URL, its executable, and the slot of the newest demo.
URL=
DEMO=
SERVER=
# The verdicts so far, and the faults of the current scenario.
PASSED=0
FAILED=0
FAULTS=()

# --- requests ----------------------------------------------------------------------------------------------

# send METHOD PATH KEY BODY [curl's options]: sends a request and reads the response into STATUS, HEAD and BODY.
# An empty KEY or BODY is left out; a BODY of @file is the content of the file.
send() {
    start now "$@"
    finish now
}

# start SLOT METHOD PATH KEY BODY [curl's options]: sends a request in the background. `finish SLOT` reads the response.
start() {
    local slot=$1 method=$2 path=$3 key=$4 body=$5
    shift 5
    local options=(--header 'expect:')
    [[ -z $key ]] || options+=(--header "idempotency-key: $key")
    [[ -z $body ]] || options+=(--header 'content-type: application/json' --data-binary "$body")
    : >"$TMP/$slot.head"
    : >"$TMP/$slot.body"
    # -q, which must come first, ignores ~/.curlrc. No proxy, because the demo is on this machine.
    curl -q --noproxy '*' --silent --max-time "$REQUEST_TIMEOUT" --request "$method" \
        --dump-header "$TMP/$slot.head" --output "$TMP/$slot.body" --write-out '%{http_code}' \
        "${options[@]}" "$@" "$URL$path" >"$TMP/$slot.status" 2>/dev/null &
    printf -v "PID_$slot" %s $!
}

# finish SLOT: waits for the response to the request of `start SLOT`, and reads it.
finish() {
    local pid=PID_$1
    wait "${!pid}" || true
    printf -v "PID_$1" %s ''
    STATUS=$(<"$TMP/$1.status")
    HEAD=$(<"$TMP/$1.head")
    BODY=$(<"$TMP/$1.body")
}

# leave SLOT: disconnects without waiting for the response.
leave() {
    local pid=PID_$1
    kill -KILL "${!pid}"
    wait "${!pid}" 2>/dev/null || true
    printf -v "PID_$1" %s ''
}

# header NAME: the value of a header of the last response, NAME in lower case.
header() {
    local line
    while IFS= read -r line; do
        line=${line%$'\r'}
        if [[ ${line%%:*} == "$1" ]]; then
            printf '%s' "${line#*: }"
            return
        fi
    done <<<"$HEAD"
}

# field NAME: the value of a string in the last response's JSON.
field() {
    [[ $BODY =~ \"$1\":\"([^\"]*)\" ]] && printf '%s' "${BASH_REMATCH[1]}"
}

# get PATH: prints a page.
get() {
    curl -q --noproxy '*' --silent --fail --max-time "$REQUEST_TIMEOUT" "$URL$1" 2>/dev/null
}

healthy() {
    get /health >/dev/null
}

# count KIND: how often payments, orders or reports were executed.
count() {
    local effects
    effects=$(get /api/effects)
    [[ $effects =~ \"$1\":([0-9]+) ]] && printf '%s' "${BASH_REMATCH[1]}"
}

# gauge NAME: its value; 0 where it was never set.
gauge() {
    local name value
    while read -r name value; do
        if [[ $name == "$1" ]]; then
            printf '%s' "$value"
            return
        fi
    done < <(get /metrics)
    printf 0
}

gauge_is() {
    [[ $(gauge "$1") == "$2" ]]
}

# --- demos -------------------------------------------------------------------------------------------------

# build [EXAMPLE]: builds the demo, and sets DEMO to its executable.
build() {
    local artifacts example=${1:-payments}
    echo "building the demo"
    artifacts=$(cd "$HERE/.." && cargo build --quiet --example "$example" --message-format json-render-diagnostics) ||
        give_up 'the demo does not build'
    local line
    while IFS= read -r line; do
        if [[ $line == *"\"name\":\"$example\""* && $line =~ \"executable\":\"([^\"]+)\" ]]; then
            DEMO=${BASH_REMATCH[1]}
        fi
    done <<<"$artifacts"
    [[ -n $DEMO ]] || give_up 'cargo does not print the path of the demo'
}

# start_demo NAME [VARIABLE=value]: starts a demo on a free port and sets URL. ROLE=word is its argument.
start_demo() {
    local name=$1 setting
    shift
    : >"$TMP/$name.out"
    (
        unset TTL LEASE WAIT_TIMEOUT ON_CRASH NODE LEDGER
        for setting in "$@"; do
            export "${setting?}"
        done
        PORT=0 exec "$DEMO" ${ROLE:+"$ROLE"}
    ) >"$TMP/$name.out" 2>"$TMP/$name.err" &
    SERVER=demo_$name
    printf -v "PID_$SERVER" %s $!
    URL=
    if ! eventually listening "$name" || ! eventually healthy; then
        cat "$TMP/$name.err" >&2
        give_up "the demo does not start: $name $*"
    fi
}

# listening NAME: sets URL to the address that the demo prints.
listening() {
    [[ $(<"$TMP/$1.out") =~ listening\ on\ (http://[0-9.:]+) ]] && URL=${BASH_REMATCH[1]}
}

# stop_demo: sends SIGTERM to the newest demo, which must end with exit code 0.
stop_demo() {
    local code=0 pid=PID_$SERVER
    kill -TERM "${!pid}"
    if eventually ended "${!pid}"; then
        wait "${!pid}" || code=$?
        printf -v "PID_$SERVER" %s ''
        expect 'exit code' 0 "$code"
    else
        fault 'the demo does not end'
    fi
}

ended() {
    ! kill -0 "$1" 2>/dev/null
}

# Kills the processes that this script started, and no others, in whatever way the script ends.
clean_up() {
    local variable
    # Without those that were waited for: their ids may belong to other processes by now.
    for variable in ${!PID_@}; do
        [[ -z ${!variable} ]] || kill -KILL "${!variable}" 2>/dev/null
    done
    wait 2>/dev/null
    rm -rf "$TMP"
}

# --- verdicts ----------------------------------------------------------------------------------------------

# scenario TITLE FUNCTION: runs it and prints its verdict.
scenario() {
    FAULTS=()
    "$2"
    if ((${#FAULTS[@]} == 0)); then
        PASSED=$((PASSED + 1))
        echo "PASS  $1"
    else
        FAILED=$((FAILED + 1))
        echo "FAIL  $1"
        printf '      %s\n' "${FAULTS[@]}"
    fi
}

fault() {
    FAULTS+=("$1")
}

# expect WHAT EXPECTED ACTUAL
expect() {
    [[ $3 == "$2" ]] || fault "$1: expected '$2', got '${3:0:300}'"
}

# expect_like WHAT PATTERN ACTUAL
expect_like() {
    # shellcheck disable=SC2053 # the right side is a pattern
    [[ $3 == $2 ]] || fault "$1: expected something like '$2', got '${3:0:300}'"
}

# expect_problem STATUS CODE: the last response is this problem.
expect_problem() {
    expect "status and code" "$1 $2" "$STATUS $(field code)"
    expect content-type application/problem+json "$(header content-type)"
}

# eventually COMMAND…: repeats the command until it succeeds, within the bound.
eventually() {
    local try
    for ((try = 0; try < TRIES; try++)); do
        "$@" && return
        sleep 0.1
    done
    return 1
}

give_up() {
    echo "$1" >&2
    exit 2
}
