#!/usr/bin/env bash
# Calls the service in server with real SDKs and HTTP clients, at the versions that are written down here. They are
# installed into target/clients. On Debian and Ubuntu, what they need and the machine does not have is installed first.
#
#   bash tests/clients/run.sh       prints a line for each row, and how many passed
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
cd ../..

target="${CARGO_TARGET_DIR:-target}"
mkdir -p "$target/clients/node"
room=$(realpath "$target/clients")

missing=()
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]})); then
    if ! command -v apt-get >/dev/null; then
        echo "error: please install these first: ${missing[*]} (only Debian and Ubuntu are automated)" >&2
        exit 1
    fi
    sudo=()
    ((EUID == 0)) || sudo=(sudo)
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# The clients for Node.js need 20, which Debian 12 does not have yet.
with_node=true
(($(node -p 'process.versions.node.split(".")[0]') >= 20)) || with_node=false

# Installed once: a changed list of versions is another folder's content.
if ! cmp -s "$here/python/requirements.txt" "$room/python/requirements.txt"; then
    rm -rf "$room/python"
    python3 -m venv "$room/python"
    "$room/python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        --requirement "$here/python/requirements.txt"
    cp "$here/python/requirements.txt" "$room/python/"
fi
cp "$here/node/package.json" "$here/node/clients.mjs" "$room/node/"
if ! $with_node; then
    echo "skipped: the clients for Node.js need version 20, and this is $(node --version)" >&2
elif ! cmp -s "$here/node/package-lock.json" "$room/node/package-lock.json" || [[ ! -d $room/node/node_modules ]]; then
    cp "$here/node/package-lock.json" "$room/node/"
    (cd "$room/node" && npm ci --silent --ignore-scripts --no-audit --no-fund)
fi

cargo build --quiet -p idempotent-tests --bin clients-server
cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml" --target-dir "$room/rust"

# rows NAME COMMAND…: runs the clients of one language against a server of their own, for at most three minutes.
rows() {
    local name=$1 ports
    shift
    # The server ends with its standard input, and that with this coprocess.
    coproc server { exec "$target/debug/clients-server"; }
    read -r -a ports <&"${server[0]}"
    timeout 180 "$@" "${ports[@]}" >"$room/$name.log" 2>&1 || true
    exec {server[1]}>&-
    wait "$server_PID"
}

rows python "$room/python/bin/python" "$here/python/clients.py" &
python=$!
rows rust "$room/rust/debug/idempotent-clients" &
rust=$!
: >"$room/node.log"
if $with_node; then
    rows node node "$room/node/clients.mjs" &
    wait "$!"
fi
wait "$python" "$rust"

cat "$room/python.log" "$room/node.log" "$room/rust.log"
# `grep -c` fails where it counts none.
passed=$(cat "$room"/{python,node,rust}.log | grep -c '^ok ') || true
failed=$(cat "$room"/{python,node,rust}.log | grep -vc '^ok ') || true
# A run that was cut off, or a client that could not be started, has fewer rows.
of_python=40 of_node=42 of_rust=37
expected=$((of_python + of_node + of_rust)) skipped=0
$with_node || expected=$((expected - of_node)) skipped=$of_node
if ((passed + failed < expected)); then
    echo "error: $((passed + failed)) rows instead of $expected" >&2
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
