#!/usr/bin/env bash
# Runs the README's two commands on a fresh machine: a minimal Debian in a temporary folder, with this machine's Rust
# toolchain and a clone of the last commit, and nothing else. What is not committed is not tried.
#
#   bash tests/fresh.sh             both: the parts demo and quick
#   bash tests/fresh.sh PART…       some of: demo    `cargo run --example payments`, until it has answered a request
#                                            quick   `bash tests/run.sh --quick`
#                                            all     `bash tests/run.sh`
#
# Needs root, debootstrap (`apt-get install debootstrap`), a Rust toolchain of rustup, Debian's packages and crates.io.
# SUITE names Debian's release (bookworm), MIRROR where its packages are, TMPDIR where the root is made: it takes 1.5 GiB
# for the demo and 8 GiB for the tests.
#
# The root is seen by this script's processes only: they have a mount and a process namespace of their own, so that all
# of them and all mounts end with the script, whichever way it ends.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
alone=(unshare --mount --pid --ipc --fork --kill-child)

main() {
    local part
    (($#)) || set -- demo quick
    for part; do
        [[ $part == demo || $part == quick || $part == all ]] || fail "usage: bash tests/fresh.sh [demo] [quick] [all]"
    done
    ((EUID == 0)) || fail "a Debian root can only be made by root: run it with sudo"
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
    command -v rustup >/dev/null || fail "rustup is missing: install Rust as https://rustup.rs says"

    work=$(mktemp -d)
    child=
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    echo "== a minimal Debian $suite in $work"
    wait_for "${alone[@]}" debootstrap --variant=minbase --include=ca-certificates "$suite" "$work/base" "$mirror" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        fail "debootstrap failed"
    }
    reach_the_network "$work/base"
    # The network is this machine's: no package starts its server on a port that may be taken here.
    install -m 755 /dev/stdin "$work/base/usr/sbin/policy-rc.d" <<<$'#!/bin/sh\nexit 101'
    git clone --quiet --no-hardlinks . "$work/base/root/idempotent"

    # Each part has a machine of its own, so that none finds what another installed.
    for part; do
        cp -a --reflink=auto "$work/base" "$work/$part"
        inside "$part"
        rm -rf --one-file-system "${work:?}/$part"
    done
    echo "== works on a fresh machine: $*"
}

# inside PART: runs its script below, in its root.
inside() {
    local root=$work/$1 rustup cargo
    rustup=$(rustup show home)
    cargo=$(dirname "$(command -v cargo)")
    mkdir -p "$root$rustup" "$root/root/.cargo/bin"
    # shellcheck disable=SC2016 # expanded by the inner shell
    wait_for "${alone[@]}" bash -c '
        set -e
        root=$1 rustup=$2 cargo=$3
        mount -t proc proc "$root/proc"
        # Tests make the kernel find errors on a disk of theirs, which they do in /sys.
        mount -t sysfs sysfs "$root/sys"
        mount --rbind /dev "$root/dev"
        # On a machine of its own, shared memory is too: what a killed server leaves there is gone with the root.
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        mount --bind -o ro "$rustup" "$root$rustup"
        mount --bind -o ro "$cargo" "$root/root/.cargo/bin"
        shift 3
        exec chroot "$root" /usr/bin/env -i "$@"
    ' inside "$root" "$rustup" "$cargo" \
        HOME=/root LANG=C.UTF-8 PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        RUSTUP_HOME="$rustup" ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        bash -euo pipefail -c "$("script_$1")"
}

# What the README's first command needs: a C compiler. Then the command itself, on a free port, and one request, without
# curl, which a minimal Debian does not have.
script_demo() {
    cat <<'SCRIPT'
cd /root/idempotent
echo "== apt-get install gcc libc6-dev"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/tmp/apt.log 2>&1 || {
    cat /tmp/apt.log
    exit 1
}
echo "== cargo run --example payments"
: >/tmp/demo.out
PORT=0 cargo run --example payments >/tmp/demo.out &
demo=$!
until [[ $(</tmp/demo.out) =~ listening\ on\ http://127\.0\.0\.1:([0-9]+) ]]; do
    kill -0 "$demo" || { echo "the demo ended before it listened" >&2; exit 1; }
    sleep 1
done
exec 3<>"/dev/tcp/127.0.0.1/${BASH_REMATCH[1]}"
body='{"amount": 100}'
printf '%s\r\n' 'POST /api/payments HTTP/1.1' 'host: 127.0.0.1' 'connection: close' 'idempotency-key: fresh' \
    'content-type: application/json' "content-length: ${#body}" '' "$body" >&3
IFS= read -r -t 30 status <&3
echo "the demo answers: ${status%$'\r'}"
[[ $status == 'HTTP/1.1 201 '* ]]
kill -TERM "$demo"
wait "$demo"
SCRIPT
}

script_quick() {
    echo 'cd /root/idempotent; bash tests/run.sh --quick'
}

script_all() {
    echo 'cd /root/idempotent; bash tests/run.sh'
}

# reach_the_network ROOT: names, certificates, proxies and APT's settings as this machine has them.
reach_the_network() {
    cp --dereference /etc/resolv.conf /etc/hosts "$1/etc/"
    apt-config dump | grep -E '^Acquire::(http|https|Retries|Check-Date|Check-Valid-Until)' \
        >"$1/etc/apt/apt.conf.d/99machine" || true
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
        cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/"
        chroot "$1" update-ca-certificates >/dev/null 2>&1
    fi
    local config="${CARGO_HOME:-$HOME/.cargo}/config.toml"
    mkdir -p "$1/root/.cargo"
    [[ ! -f $config ]] || cp "$config" "$1/root/.cargo/"
}

# wait_for COMMAND…: a child that a signal to this script does not wait for.
wait_for() {
    "$@" &
    child=$!
    local code=0
    wait "$child" || code=$?
    child=
    return "$code"
}

clean_up() {
    # unshare ignores SIGTERM; when it is killed, the kernel kills its namespace.
    [[ -z $child ]] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null || true
    rm -rf --one-file-system "$work"
}

fail() {
    echo "error: $*" >&2
    exit 1
}

main "$@"
