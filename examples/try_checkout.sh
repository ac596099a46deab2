#!/usr/bin/env bash
# Tests the example `checkout` as a client that retries until it has an answer, while shop, provider and mail server fail,
# and prints PASS or FAIL for each scenario.
#
#   bash examples/try_checkout.sh
#
# Needs bash, curl and cargo. The exit code is 0 if every scenario passed, 1 if one failed, 2 if none could run.

set -u -o pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly HERE
# shellcheck source=examples/try/tools.sh
source "$HERE/try/tools.sh"

# Where provider and mail server are: they live longer than the shop.
OUTSIDE=
# How many checkouts the books should hold.
SOLD=0

main() {
    TMP=$(mktemp -d) || exit 2
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    build checkout
    start_demo outside ROLE=outside
    OUTSIDE=$URL
    start_shop

    scenario 'a checkout reserves, charges, orders and mails once' checkout
    scenario 'its retry is a replay' replay
    scenario 'a provider that fails before it charges' provider_fails
    scenario 'a provider whose answer is lost is asked again with the same key' answer_is_lost
    scenario 'a provider that hangs' provider_hangs
    scenario 'a shop that dies after its reservation' dies_after_reserve
    scenario 'a shop that dies after the charge' dies_after_charge
    scenario 'a shop that dies after the order' dies_after_confirm
    scenario 'a mail server that fails, hangs and loses its answer' mail_fails
    scenario 'a declined card gives the piece back' declined
    scenario 'what is sold out is an outcome' sold_out

    echo "$PASSED passed, $FAILED failed"
    ((FAILED == 0))
}

start_shop() {
    start_demo shop "OUTSIDE=$OUTSIDE" "DATABASE_URL=sqlite://$TMP/shop.db" LEASE=1s
}

# trouble JSON: what goes wrong next outside.
trouble() {
    curl -q --noproxy '*' --silent --fail --max-time "$REQUEST_TIMEOUT" --output /dev/null \
        --header 'content-type: application/json' --data-binary "$1" "$OUTSIDE/outside/trouble"
}

# buy KEY [curl's options]: one attempt.
buy() {
    local key=$1
    shift
    send POST /api/checkouts "$key" '{"item":"book","amount":20,"mail":"ann@example.com"}' "$@"
}

# buy_until_answered KEY: attempts until there is an answer that is one.
buy_until_answered() {
    buy "$1"
    [[ $STATUS == 201 ]]
}

# number NAME TEXT: a number in JSON.
number() {
    [[ $2 =~ \"$1\":([0-9]+) ]] && printf '%s' "${BASH_REMATCH[1]}"
}

outside_books() {
    URL=$OUTSIDE get /outside/books
}

mails_are() {
    [[ $(number mails "$(outside_books)") == "$1" ]]
}

# The books of all agree: one reservation, charge, order and mail for each checkout.
expect_books() {
    local books outside
    eventually mails_are "$SOLD" || fault "the mails are not $SOLD"
    books=$(get /api/books)
    outside=$(outside_books)
    expect 'reservations, orders, charges, mails' "$SOLD $SOLD $SOLD $SOLD" \
        "$(number reservations "$books") $(number orders "$books") $(number charges "$outside") $(number mails "$outside")"
    expect 'stock' $((11 - SOLD)) "$(number stock "$books")"
}

checkout() {
    buy first
    expect 'status and charge' '201 charge-1' "$STATUS $(field charge)"
    SOLD=1
    expect_books
}

replay() {
    buy first
    expect 'status, charge and replay' '201 charge-1 true' "$STATUS $(field charge) $(header idempotent-replay)"
    expect_books
}

provider_fails() {
    trouble '{"charges":["fail","fail"]}'
    buy fails
    expect 'the first answer' '502 try_again' "$STATUS $(field error)"
    SOLD=2
    eventually buy_until_answered fails || fault 'there is no answer'
    expect_books
}

answer_is_lost() {
    trouble '{"charges":["lose"]}'
    buy lost
    expect 'the first answer' 502 "$STATUS"
    SOLD=3
    eventually buy_until_answered lost || fault 'there is no answer'
    expect_books
}

provider_hangs() {
    trouble '{"charges":["hang"]}'
    buy hangs
    expect 'the first answer' 502 "$STATUS"
    SOLD=4
    eventually buy_until_answered hangs || fault 'there is no answer'
    expect_books
}

# dies_after STEP: the shop dies behind this step, and another one goes on.
dies_after() {
    local pid=PID_$SERVER
    buy "dies-$1" --header "x-crash: $1"
    expect 'the first answer' 000 "$STATUS"
    wait "${!pid}" 2>/dev/null
    printf -v "PID_$SERVER" %s ''
    start_shop
    SOLD=$((SOLD + 1))
    eventually buy_until_answered "dies-$1" || fault 'there is no answer'
    expect_books
}

dies_after_reserve() {
    dies_after reserve
}

dies_after_charge() {
    dies_after charge
}

dies_after_confirm() {
    dies_after confirm
}

mail_fails() {
    trouble '{"mails":["fail","lose","hang","fail"]}'
    local before after
    before=$(outside_books)
    buy mail
    expect 'status' 201 "$STATUS"
    SOLD=$((SOLD + 1))
    expect_books
    eventually mails_were_tried "$((5 + $(requested_mails "$before")))" || fault 'the mail was not tried five times'
    after=$(outside_books)
    expect 'mails' "$SOLD" "$(number mails "$after")"
}

# requested_mails BOOKS: how often mails were sent to the server.
requested_mails() {
    number mails "${1#*requests}"
}

mails_were_tried() {
    (($(requested_mails "$(outside_books)") >= $1))
}

declined() {
    local body='{"item":"book","amount":1001,"mail":"ann@example.com"}'
    send POST /api/checkouts declined "$body"
    expect 'status and error' '402 declined' "$STATUS $(field error)"
    send POST /api/checkouts declined "$body"
    expect 'again' '402 declined true' "$STATUS $(field error) $(header idempotent-replay)"
    expect_books
}

sold_out() {
    local body='{"item":"unicorn","amount":1,"mail":"ann@example.com"}'
    send POST /api/checkouts sold-out "$body"
    expect 'status and error' '409 sold_out' "$STATUS $(field error)"
    send POST /api/checkouts sold-out "$body"
    expect 'again' '409 sold_out true' "$STATUS $(field error) $(header idempotent-replay)"
    expect_books
}

main "$@"
