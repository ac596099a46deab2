#!/usr/bin/env bash
# The same as http.sh, beside published crates with the same purpose: how much user time a request costs beyond the bare
# handler, ours in relation to theirs.
#
#   bash bench/peers.sh                     7 rounds of 2 seconds for each kind and body size: four minutes
#
# peers/src/main.rs says how each crate is set up. Each has a server of its own, built together. measure.sh says how it is
# measured. Every kind is sent the same requests: one of the crates stores responses in the client's session, so each has the
# cookie of one, a session for each key. Ours takes it for the caller's credentials, and compares them.
set -euo pipefail
cd "$(dirname "$0")/.."
source bench/measure.sh

sessions=true
peers=(axum-idempotent idempotent)

target="${CARGO_TARGET_DIR:-target}/peers"
# `idempotent` declares a newer Rust than it needs. Not --locked: the lock also has what the library itself depends on.
cargo build --quiet --release --ignore-rust-version --manifest-path bench/peers/Cargo.toml --target-dir "$target"

kind bare ours /bare
for crate in ours "${peers[@]}"; do
    serve "$crate" "$target/release/idempotent-peers" "$crate"
    kind "$crate-first" "$crate" /short-lived
    kind "$crate-replay" "$crate" /payments repeat
done

for size in "${sizes[@]}"; do
    measure "$size"
    header "$size"
    for kind in "${kinds[@]}"; do report "$kind"; done
    echo "user time beyond bare, ours to theirs:"
    for crate in "${peers[@]}"; do
        first=$(beyond ours-first "$crate-first")
        replay=$(beyond ours-replay "$crate-replay")
        printf '  %-23s first %5.2f   replay %5.2f\n' "$crate" "$first" "$replay"
    done
done
