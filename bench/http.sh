#!/usr/bin/env bash
# Requests per second over real TCP on 127.0.0.1: the bare handler, first executions and replays, alternately.
#
#   bash bench/http.sh                      7 rounds of 2 seconds for each kind and body size
#   ROUNDS=15 SECONDS_EACH=4 bash bench/http.sh
#
# One server serves all routes. measure.sh says how it is measured. Every kind is sent the same keyed requests; the bare
# handler ignores the keys.
set -euo pipefail
cd "$(dirname "$0")/.."
source bench/measure.sh

cargo build --quiet --release -p idempotent-bench --example bench_server
serve server "${CARGO_TARGET_DIR:-target}/release/examples/bench_server"

kind bare server /bare
kind first server /short-lived
kind replay server /payments repeat

for size in "${sizes[@]}"; do
    measure "$size"
    header "$size"
    report bare
    report first "target: 1.2 beyond, 1.25 to bare"
    report replay "target: 0.6 beyond, 1.10 to bare"
done
