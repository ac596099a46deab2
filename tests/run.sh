#!/usr/bin/env bash
# Runs all tests. On Debian and Ubuntu it first installs what they need and the machine does not have.
#
#   bash tests/run.sh            all of it
#   bash tests/run.sh --quick    without the model checkers, the feature combinations and the clients
set -euo pipefail
cd "$(dirname "$0")/.."

quick=false
case "${1:-}" in
    "") ;;
    --quick) quick=true ;;
    *) echo "usage: bash tests/run.sh [--quick]" >&2; exit 2 ;;
esac

target="${CARGO_TARGET_DIR:-target}"

step() { printf '\n== %s\n' "$*"; "$@"; }

# selection COMMAND…: a step that runs the tests of some names. After a rename it would run none, and succeed.
selection() {
    local log="$target/selection.log"
    step "$@" 2>&1 | tee "$log"
    if ! grep -q '^test result: ok\. [1-9]' "$log"; then
        echo "error: this ran no test: have the tests that it selects by name been renamed?" >&2
        return 1
    fi
}

# command:package pairs that are needed before anything is built. The tests start servers of their own, on free ports
# and in temporary folders, and leave those alone that a package starts.
needed=(curl:curl setpriv:util-linux redis-server:redis-server mariadbd:mariadb-server)
missing=()
for pair in "${needed[@]}"; do
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# The page of the admin routes is tested in a browser, in whichever of these there is.
browser=false
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && browser=true
done
$browser || missing+=(chromium)
compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || command -v postgres >/dev/null || missing+=(postgresql)
# Whether cc links, not only whether it is there: Debian's gcc only recommends libc6-dev, without which every link fails.
links() {
    local program code=0
    program=$(mktemp)
    printf '#include <stdio.h>\nint main(void) { return 0; }\n' | cc -x c -o "$program" - 2>/dev/null || code=$?
    rm -f "$program"
    return "$code"
}
links || missing+=(gcc libc6-dev)
if ((${#missing[@]})); then
    if ! command -v apt-get >/dev/null; then
        echo "error: please install these first: ${missing[*]} (only Debian and Ubuntu are automated)" >&2
        exit 1
    fi
    sudo=()
    ((EUID == 0)) || sudo=(sudo)
    step "${sudo[@]}" apt-get update -qq
    step "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
    echo "error: cargo is not on the PATH. Install Rust as https://rustup.rs says, then run this again." >&2
    exit 1
fi

# A test whose server is still missing fails here; elsewhere it is skipped.
export IDEMPOTENT_REQUIRE_SERVERS=1
step cargo test --workspace --all-features
step cargo run --quiet -p idempotent-examples --example layer
step cargo run --quiet -p idempotent-examples --example recovery
step cargo run --quiet -p idempotent-examples --example consumer
step cargo run --quiet -p idempotent-examples --example grpc

if ! $quick; then
    # A combination that does not build alone would break users who choose it: none, each one, all of them, and pairs of
    # those whose code meets. The stores' clients take long to build and meet nothing but the contract.
    PATH="$(bash .ci/tool cargo-hack):$PATH"
    step cargo hack check --quiet -p idempotent-runtime --each-feature
    step cargo hack check --quiet -p idempotent-runtime --feature-powerset --depth 2 \
        --include-features axum,macros,typed-routing,memory,cached,compression,encryption,metrics,conformance
    # The errors for a store, or for TLS, that was not compiled in.
    selection cargo test --quiet -p idempotent-runtime --no-default-features --features redis --lib -- \
        a_store_that_was_not_compiled_in_names_its_feature tls_needs_its_feature
    # The model checkers replace the locks, so each builds into a folder of its own.
    RUSTFLAGS="--cfg idempotent_loom" CARGO_TARGET_DIR="$target/loom" \
        selection cargo test -p idempotent-runtime --lib --release -- interleavings
    RUSTFLAGS="--cfg idempotent_shuttle" CARGO_TARGET_DIR="$target/shuttle" \
        selection cargo test -p idempotent-runtime --lib --release -- interleavings
    # Clients as their registries have them, which are installed into the target folder.
    step bash tests/clients/run.sh
fi

step bash examples/try.sh
step bash examples/try_checkout.sh
