# Short names for the commands of .github/CONTRIBUTING.md, which can be typed as they stand here.
# `just` is a package of Debian 13 and of crates.io: cargo install just

# Lists the recipes.
default:
    @just --list

# Format, lints and the unit tests, which need no server.
quick:
    cargo fmt --all --check
    cargo clippy --workspace --all-features --all-targets -- -D warnings
    cargo test --workspace --all-features --lib

# All tests; installs the servers that they need on Debian and Ubuntu. `just test --quick` is shorter.
test *options:
    bash tests/run.sh {{ options }}

# The benchmarks that need nothing but cargo; bench/README.md has the others.
bench:
    cargo bench -p idempotent-bench --no-fail-fast

# The documentation, every warning an error.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

# What every change must pass.
verify:
    bash .ci/run

# The share of lines that the tests run.
coverage:
    bash .ci/coverage

# The README's two commands on a minimal Debian; as root, with debootstrap.
fresh *parts:
    bash tests/fresh.sh {{ parts }}
