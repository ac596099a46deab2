#!/usr/bin/env bash
# Tests the demo as a user would, and prints PASS or FAIL for each scenario.
#
#   bash examples/try.sh                                builds and starts private demos, and ends them
#   bash examples/try.sh --url http://127.0.0.1:8000    tests a running demo; skips what needs a private one
#
# Needs bash and curl, and cargo unless --url is given. The exit code is 0 if every scenario passed, 1 if one failed,
# 2 if none could run.
#
# No scenario relies on a pause being long enough: it polls /metrics, /api/effects or the process itself until the event
# has happened, within a generous bound.

set -u -o pipefail

# The delay of a handler, in milliseconds, where something must happen during the execution.
readonly LONG=5000
# The prefix of every key of this run, so that the keys are new to a demo that was tested before.
readonly RUN="try-$$-$RANDOM$RANDOM"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
# shellcheck source=examples/try/tools.sh
source "$HERE/try/tools.sh"

main() {
    local url=
    if [[ $# == 2 && $1 == --url && -n $2 ]]; then
        url=$2
    elif (($# > 0)); then
        give_up 'usage: bash examples/try.sh [--url http://127.0.0.1:8000]'
    fi

    TMP=$(mktemp -d) || exit 2
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    if [[ -n $url ]]; then
        URL=${url%/}
        healthy || give_up "no answer from $URL/health"
    else
        build
        start_demo main
    fi
    everything_against_one_demo
    if [[ -n $url ]]; then
        echo "SKIP  expiry, crash policy, shutdown, settings: they need private demos"
    else
        everything_with_its_own_demo
    fi

    echo "$PASSED passed, $FAILED failed"
    ((FAILED == 0))
}

everything_against_one_demo() {
    scenario 'a first request executes' first_request
    scenario 'its retry is a byte-identical replay without an effect' replay
    scenario 'a key is the same with and without quotes' quotes
    scenario 'the same key with another request is a mismatch' mismatch
    scenario 'the same key of another caller is another key' other_caller
    scenario 'a revoked token gets 401 and no stored response' revoked_token
    scenario 'the same key on another route is another key' other_route
    scenario 'without a key every request executes' no_key
    scenario 'a duplicate in flight gets a conflict where waiting is off' conflict
    scenario 'duplicates in flight wait for the answer where waiting is on' waiting
    scenario 'twenty duplicates at once execute once' at_once
    scenario 'an error of the handler is replayed too' cached_error
    scenario 'a key that is required and missing is 400' missing_key
    scenario 'a bad key is 400 and executes nothing' bad_key
    scenario 'two keys are 400, even equal ones' two_keys
    scenario 'a rejected body leaves the key unused' rejected_body
    scenario 'a rejected header leaves the key unused' rejected_header
    scenario 'a body over the limit is 413 and leaves the key unused' large_request
    scenario 'a panic is an outcome, and its retry makes no second payment' panic
    scenario 'a client that disconnects does not stop its payment; the retry gets the response' disconnect
    scenario 'PUT, PATCH and DELETE are replayed' other_methods
    scenario 'a stream is replayed' streamed
    scenario 'a response too large to store is not executed again' large_response
    scenario 'the metrics count all this' metrics
}

everything_with_its_own_demo() {
    scenario 'after its ttl a key is free again (TTL=1s NODE=a)' expiry
    scenario 'after a panic the retry executes again (ON_CRASH=retry)' panic_and_retry
    scenario 'SIGTERM drains executions, with and without a client, then exits 0 (LEDGER)' drain
    scenario 'an invalid setting ends the demo with exit code 2 (TTL=soon)' wrong_setting
}

# --- the scenarios -----------------------------------------------------------------------------------------

first_request() {
    local before
    before=$(count payments)
    send POST /api/payments "$RUN-first" '{"amount": 100}'
    expect status 201 "$STATUS"
    expect_like body '{"status":"success","id":"payment-*","amount":100}' "$BODY"
    expect 'replay header' '' "$(header idempotent-replay)"
    expect payments $((before + 1)) "$(count payments)"
}

replay() {
    local before first
    send POST /api/payments "$RUN-replay" '{"amount": 100}'
    first="$STATUS $(header content-type) $BODY"
    before=$(count payments)
    send POST /api/payments "$RUN-replay" '{"amount": 100}'
    expect answer "$first" "$STATUS $(header content-type) $BODY"
    expect 'replay header' true "$(header idempotent-replay)"
    expect payments "$before" "$(count payments)"
}

quotes() {
    local first
    send POST /api/payments "$RUN-quotes" '{"amount": 1}'
    first=$BODY
    send POST /api/payments "\"$RUN-quotes\"" '{"amount": 1}'
    expect 'answer to the quoted key' "$first" "$BODY"
    expect 'replay header' true "$(header idempotent-replay)"
}

mismatch() {
    local before first
    send POST /api/payments "$RUN-mismatch" '{"amount": 100}'
    first=$BODY
    before=$(count payments)
    send POST /api/payments "$RUN-mismatch" '{"amount": 999}'
    expect_problem 409 mismatch
    send POST /api/payments "$RUN-mismatch" '{"amount": 100}'
    expect 'answer to the first request' "$first" "$BODY"
    expect payments "$before" "$(count payments)"
}

other_caller() {
    local first
    send POST /api/payments "$RUN-caller" '{"amount": 1}' --header "authorization: Bearer $RUN-one"
    expect status 201 "$STATUS"
    first=$BODY
    send POST /api/payments "$RUN-caller" '{"amount": 1}' --header "authorization: Bearer $RUN-two"
    expect 'status and replay header' '201 ' "$STATUS $(header idempotent-replay)"
    [[ $BODY != "$first" ]] || fault 'the other caller got the first one'"'"'s payment'
    send POST /api/payments "$RUN-caller" '{"amount": 1}' --header "authorization: bearer $RUN-one"
    expect 'answer to the first caller' "true $first" "$(header idempotent-replay) $BODY"
}

revoked_token() {
    local before
    send POST /api/payments "$RUN-revoked" '{"amount": 1}' --header "authorization: Bearer $RUN-revoked"
    expect status 201 "$STATUS"
    before=$(count payments)
    send DELETE "/api/tokens/$RUN-revoked" '' ''
    expect 'status of the revocation' 204 "$STATUS"
    send POST /api/payments "$RUN-revoked" '{"amount": 1}' --header "authorization: Bearer $RUN-revoked"
    expect 'status and replay header' '401 ' "$STATUS $(header idempotent-replay)"
    expect payments "$before" "$(count payments)"
}

other_route() {
    send POST /api/payments "$RUN-route" '{"amount": 1, "item": "book", "quantity": 1}'
    expect_like 'a payment' '*"id":"payment-*' "$BODY"
    send POST /api/orders "$RUN-route" '{"amount": 1, "item": "book", "quantity": 1}'
    expect status 201 "$STATUS"
    expect_like 'an order' '*"id":"order-*' "$BODY"
}

no_key() {
    local before
    before=$(count payments)
    send POST /api/payments '' '{"amount": 1}'
    expect status 201 "$STATUS"
    send POST /api/payments '' '{"amount": 1}'
    expect status 201 "$STATUS"
    expect payments $((before + 2)) "$(count payments)"
}

conflict() {
    local before running first
    before=$(count orders)
    running=$(gauge idempotency_in_flight)
    start slow POST /api/orders "$RUN-conflict" '{"item":"book","quantity":2}' --header "x-delay-ms: $LONG"
    eventually gauge_is idempotency_in_flight $((running + 1)) || fault 'the order was never in flight'
    send POST /api/orders "$RUN-conflict" '{"item":"book","quantity":2}'
    expect_problem 409 conflict
    expect_like Retry-After '[1-9]*' "$(header retry-after)"
    finish slow
    expect status 201 "$STATUS"
    first=$BODY
    send POST /api/orders "$RUN-conflict" '{"item":"book","quantity":2}'
    expect 'answer to the retry' "201 $first" "$STATUS $BODY"
    expect orders $((before + 1)) "$(count orders)"
}

waiting() {
    local before running waiters first slot
    before=$(count payments)
    running=$(gauge idempotency_in_flight)
    waiters=$(gauge idempotency_waiters)
    start slow POST /api/payments "$RUN-wait" '{"amount": 3}' --header "x-delay-ms: $LONG"
    eventually gauge_is idempotency_in_flight $((running + 1)) || fault 'the payment was never in flight'
    for slot in one two three; do
        start "$slot" POST /api/payments "$RUN-wait" '{"amount": 3}'
    done
    eventually gauge_is idempotency_waiters $((waiters + 3)) || fault 'three duplicates never waited'
    finish slow
    expect status 201 "$STATUS"
    first=$BODY
    for slot in one two three; do
        finish "$slot"
        expect "answer to duplicate $slot" "201 true $first" "$STATUS $(header idempotent-replay) $BODY"
    done
    expect payments $((before + 1)) "$(count payments)"
}

at_once() {
    local before slot first= executed=0
    before=$(count payments)
    for slot in {1..20}; do
        start "$slot" POST /api/payments "$RUN-at-once" '{"amount": 4}' --header 'x-delay-ms: 500'
    done
    for slot in {1..20}; do
        finish "$slot"
        [[ -n $first ]] || first=$BODY
        expect "answer $slot" "201 $first" "$STATUS $BODY"
        [[ -n $(header idempotent-replay) ]] || executed=$((executed + 1))
    done
    expect 'answers without replay header' 1 "$executed"
    expect payments $((before + 1)) "$(count payments)"
}

cached_error() {
    local before first
    send POST /api/orders "$RUN-error" '{"item":"book","quantity":0}'
    expect status 400 "$STATUS"
    first=$BODY
    before=$(count orders)
    send POST /api/orders "$RUN-error" '{"item":"book","quantity":0}'
    expect 'answer to the retry' "400 true $first" "$STATUS $(header idempotent-replay) $BODY"
    expect orders "$before" "$(count orders)"
}

missing_key() {
    local before
    before=$(count reports)
    send POST '/api/reports?bytes=10' '' ''
    expect_problem 400 missing_key
    expect reports "$before" "$(count reports)"
}

bad_key() {
    local before long key
    before=$(count payments)
    printf -v long '%0256d' 7
    for key in "$long" 'two words' 'a,b' 'a;b' '"open' 'ключ' '""'; do
        send POST /api/payments "$key" '{"amount": 1}'
        expect "status for the key $key" 400 "$STATUS"
        expect "code for the key $key" invalid_key "$(field code)"
    done
    # An empty header, which curl writes with a semicolon.
    send POST /api/payments '' '{"amount": 1}' --header 'idempotency-key;'
    expect 'status for the empty key' 400 "$STATUS"
    expect payments "$before" "$(count payments)"
}

two_keys() {
    local before
    before=$(count payments)
    send POST /api/payments "$RUN-two" '{"amount": 1}' --header "idempotency-key: $RUN-two"
    expect_problem 400 invalid_key
    expect payments "$before" "$(count payments)"
}

rejected_body() {
    local before
    before=$(count payments)
    send POST /api/payments "$RUN-rejected" '{"amount": "a lot"}'
    expect 'status for the wrong type' 422 "$STATUS"
    send POST /api/payments "$RUN-rejected" '{"amount": '
    expect 'status for broken JSON' 400 "$STATUS"
    send POST /api/payments "$RUN-rejected" '{"amount": 5}'
    expect 'status for the corrected body' 201 "$STATUS"
    expect 'replay header' '' "$(header idempotent-replay)"
    expect payments $((before + 1)) "$(count payments)"
}

rejected_header() {
    send POST /api/payments "$RUN-header" '{"amount": 5}' --header 'x-delay-ms: 60001'
    expect 'status for too long a delay' 400 "$STATUS"
    send POST /api/payments "$RUN-header" '{"amount": 5}'
    expect 'status without it' 201 "$STATUS"
}

large_request() {
    local before padding
    before=$(count payments)
    printf -v padding '%02200000d' 0
    printf '{"amount": 1, "padding": "%s"}' "$padding" >"$TMP/large.json"
    send POST /api/payments "$RUN-large" "@$TMP/large.json"
    expect_problem 413 request_too_large
    send POST /api/payments "$RUN-large" '{"amount": 1}'
    expect 'status for a smaller one' 201 "$STATUS"
    expect payments $((before + 1)) "$(count payments)"
}

panic() {
    local before first
    before=$(count payments)
    send POST /api/payments "$RUN-panic" '{"amount": 5}' --header 'x-panic: 1'
    expect_problem 500 handler_panicked
    first=$BODY
    send POST /api/payments "$RUN-panic" '{"amount": 5}' --header 'x-panic: 1'
    expect 'answer to the retry' "500 true $first" "$STATUS $(header idempotent-replay) $BODY"
    expect payments $((before + 1)) "$(count payments)"
}

disconnect() {
    local before running detached
    before=$(count payments)
    running=$(gauge idempotency_in_flight)
    detached=$(gauge idempotency_detached_executions)
    start left POST /api/payments "$RUN-left" '{"amount": 6}' --header "x-delay-ms: $LONG"
    eventually gauge_is idempotency_in_flight $((running + 1)) || fault 'the payment was never in flight'
    leave left
    eventually gauge_is idempotency_detached_executions $((detached + 1)) ||
        fault 'the demo never noticed the disconnect'
    send POST /api/payments "$RUN-left" '{"amount": 6}'
    expect 'answer to the retry' '201 true' "$STATUS $(header idempotent-replay)"
    expect_like body '{"status":"success","id":"payment-*","amount":6}' "$BODY"
    expect payments $((before + 1)) "$(count payments)"
}

other_methods() {
    local before method body first
    before=$(count orders)
    for method in PUT PATCH DELETE; do
        body='{"item":"pen","quantity":3}'
        [[ $method != DELETE ]] || body=
        send "$method" /api/orders/order-7 "$RUN-method" "$body"
        expect "$method status" 200 "$STATUS"
        first=$BODY
        send "$method" /api/orders/order-7 "$RUN-method" "$body"
        expect "answer to $method again" "200 true $first" "$STATUS $(header idempotent-replay) $BODY"
    done
    expect orders $((before + 3)) "$(count orders)"
}

streamed() {
    local before first
    before=$(count reports)
    send POST '/api/reports?bytes=300000&stream=1' "$RUN-stream" ''
    expect 'status and length' '200 300000' "$STATUS ${#BODY}"
    expect 'length known before' '' "$(header content-length)"
    first=$BODY
    send POST '/api/reports?bytes=300000&stream=1' "$RUN-stream" ''
    expect 'status and header' '200 true' "$STATUS $(header idempotent-replay)"
    [[ $BODY == "$first" ]] || fault 'the replay has other bytes'
    expect reports $((before + 1)) "$(count reports)"
}

large_response() {
    local before query
    before=$(count reports)
    for query in 'bytes=2000000' 'bytes=2000000&stream=1'; do
        send POST "/api/reports?$query" "$RUN-tombstone-$query" ''
        expect "status and length of $query" '200 2000000' "$STATUS ${#BODY}"
        send POST "/api/reports?$query" "$RUN-tombstone-$query" ''
        expect_problem 409 response_not_stored
    done
    expect reports $((before + 2)) "$(count reports)"
}

metrics() {
    local name outcome
    send GET /metrics '' ''
    expect status 200 "$STATUS"
    expect_like content-type 'text/plain*' "$(header content-type)"
    for outcome in executed replayed replayed_after_wait mismatch invalid_key rejected; do
        expect_like "$outcome" "*endpoint=\"POST /api/payments\",outcome=\"$outcome\"} [1-9]*" "$BODY"
    done
    expect_like conflict '*endpoint="POST /api/orders",outcome="conflict"} [1-9]*' "$BODY"
    for outcome in missing_key response_not_stored; do
        expect_like "$outcome" "*endpoint=\"POST /api/reports\",outcome=\"$outcome\"} [1-9]*" "$BODY"
    done
    for name in execution_seconds wait_seconds store_operation_seconds response_bytes; do
        expect_like "$name histogram" "*idempotency_${name}_bucket*" "$BODY"
    done
    for name in in_flight waiters detached_executions overdue_executions_total; do
        expect_like "$name gauge" "*idempotency_$name *" "$BODY"
    done
}

# --- scenarios with a private demo --------------------------------------------------------------------

expiry() {
    start_demo expiry TTL=1s NODE=a
    send POST /api/payments "$RUN-expiry" '{"amount": 1}'
    expect 'first id' payment-a-1 "$(field id)"
    eventually executes_again || fault 'the key never became free'
    expect 'status and id' '201 payment-a-2' "$STATUS $(field id)"
    stop_demo
}

executes_again() {
    send POST /api/payments "$RUN-expiry" '{"amount": 1}'
    [[ -z $(header idempotent-replay) ]]
}

panic_and_retry() {
    start_demo retry ON_CRASH=retry
    send POST /api/payments "$RUN-crash" '{"amount": 1}' --header 'x-panic: 1'
    expect_problem 500 handler_panicked
    send POST /api/payments "$RUN-crash" '{"amount": 1}'
    expect 'status, id and header' '201 payment-2 ' "$STATUS $(field id) $(header idempotent-replay)"
    send POST /api/payments "$RUN-crash" '{"amount": 1}'
    expect 'then' '201 payment-2 true' "$STATUS $(field id) $(header idempotent-replay)"
    stop_demo
}

drain() {
    local ledger=$TMP/ledger
    start_demo drain "LEDGER=$ledger"
    start left POST /api/payments "$RUN-left" '{"amount": 8}' --header "x-delay-ms: $LONG"
    eventually gauge_is idempotency_in_flight 1 || fault 'the first payment was never in flight'
    leave left
    eventually gauge_is idempotency_detached_executions 1 || fault 'the demo never noticed the disconnect'
    start slow POST /api/payments "$RUN-slow" '{"amount": 9}' --header "x-delay-ms: $LONG"
    eventually gauge_is idempotency_in_flight 2 || fault 'the second payment was never in flight'
    expect 'the ledger before' '' "$(<"$ledger")"
    stop_demo
    finish slow
    expect 'status of the other payment' 201 "$STATUS"
    expect_like 'the ledger after' '*payments 8 payment-*' "$(<"$ledger")"
    expect_like 'the ledger after' '*payments 9 payment-*' "$(<"$ledger")"
    expect_like 'last line' '*bye: * 0 unknown, 0 unconfirmed' "$(<"$TMP/drain.out")"
}

wrong_setting() {
    local code=0
    PORT=0 TTL=soon "$DEMO" >"$TMP/wrong.out" 2>"$TMP/wrong.err" || code=$?
    expect 'exit code' 2 "$code"
    expect_like 'the error' '*TTL="soon"*expected a duration*' "$(<"$TMP/wrong.err")"
}

main "$@"
