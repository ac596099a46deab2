#!/usr/bin/env bash
# What the attribute costs at compile time: 200 annotated handlers compared with the same 200 plain ones.
#
#   bash tests/cost/compile.sh [ROUNDS]
#
# Prints the processor time of `cargo check`, a debug and a release build of the crate alone (its dependencies are
# built before), the smallest of ROUNDS (3) each; then the lines of LLVM IR before optimisation; and the ratios.
set -euo pipefail

cd "$(dirname "$0")/../.."
root=$PWD
rounds=${1:-3}
work=$root/target/cost
export CARGO_TARGET_DIR=$work/target CARGO_INCREMENTAL=0 CARGO_TERM_QUIET=true

# Six common shapes of handlers. Each handler has a request type of its own, so that no generic code is shared between
# handlers.
handlers() {
    local attribute=$1 n
    for n in $(seq 0 199); do
        echo "$attribute"
        case $((n % 6)) in
            0) echo "async fn h$n(State(app): State<App>, Json(new): Json<New<$n>>) -> Result<(StatusCode, Json<Made>), AppError> {
                    let id = app.insert(&new.name, new.amount).await?;
                    Ok((StatusCode::CREATED, Json(Made { id, amount: new.amount })))
                }" ;;
            1) echo "async fn h$n(State(app): State<App>, Path(id): Path<u64>, Json(new): Json<New<$n>>) -> Result<Json<Made>, AppError> {
                    app.update(id, new.amount).await?;
                    Ok(Json(Made { id, amount: new.amount }))
                }" ;;
            2) echo "async fn h$n(State(app): State<App>, Path(id): Path<u64>) -> Result<StatusCode, AppError> {
                    app.update(id, $n).await?;
                    Ok(StatusCode::NO_CONTENT)
                }" ;;
            3) echo "async fn h$n(State(app): State<App>, headers: HeaderMap, body: String) -> impl IntoResponse {
                    let id = app.insert(&body, headers.len() as u64).await.unwrap_or_default();
                    (StatusCode::ACCEPTED, format!(\"{id}\"))
                }" ;;
            4) echo "async fn h$n(State(app): State<App>, Query(query): Query<New<$n>>) -> Result<Json<Vec<Made>>, AppError> {
                    let id = app.insert(&query.name, query.amount).await?;
                    Ok(Json(vec![Made { id, amount: query.amount }]))
                }" ;;
            5) echo "async fn h$n() -> &'static str { \"h$n\" }" ;;
        esac
    done
    echo "pub fn router(app: App) -> Router { Router::new()"
    for n in $(seq 0 199); do
        case $((n % 6)) in 1 | 2) echo ".route(\"/h$n/{id}\", post(h$n))" ;; *) echo ".route(\"/h$n\", post(h$n))" ;; esac
    done
    echo ".with_state(app) }"
}

crate() {
    local name=$1 attribute=$2
    mkdir -p "$work/$name/src"
    cat > "$work/$name/Cargo.toml" <<TOML
[package]
name = "$name"
version = "0.0.0"
edition = "2024"
[dependencies]
axum = "0.8"
idempotent-runtime = { path = "$root/idempotent-runtime" }
serde = { version = "1", features = ["derive"] }
tokio = { version = "1", features = ["full"] }
TOML
    {
        cat <<'RUST'
use std::sync::{Arc, Mutex};
use axum::{Json, Router, extract::{Path, Query, State}, http::{HeaderMap, StatusCode}, response::{IntoResponse, Response}, routing::post};
#[derive(serde::Deserialize)]
struct New<const N: u32> { name: String, amount: u64 }
#[derive(serde::Serialize)]
struct Made { id: u64, amount: u64 }
#[derive(Clone, Default)]
pub struct App(Arc<Mutex<Vec<(String, u64)>>>);
pub enum AppError { Full, Missing }
impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        match self { Self::Full => StatusCode::INSUFFICIENT_STORAGE, Self::Missing => StatusCode::NOT_FOUND }.into_response()
    }
}
impl App {
    async fn insert(&self, name: &str, amount: u64) -> Result<u64, AppError> {
        tokio::task::yield_now().await;
        let mut all = self.0.lock().map_err(|_| AppError::Full)?;
        all.push((name.to_owned(), amount));
        Ok(all.len() as u64)
    }
    async fn update(&self, id: u64, amount: u64) -> Result<(), AppError> {
        tokio::task::yield_now().await;
        let mut all = self.0.lock().map_err(|_| AppError::Full)?;
        all.get_mut(id as usize).ok_or(AppError::Missing)?.1 = amount;
        Ok(())
    }
}
#[tokio::main]
async fn main() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    axum::serve(listener, router(App::default())).await.expect("served");
}
RUST
        [ -z "$attribute" ] || echo "use idempotent_runtime::idempotent;"
        handlers "$attribute"
    } > "$work/$name/src/main.rs"
}

mkdir -p "$work"
printf '[workspace]\nresolver = "3"\nmembers = ["plain", "annotated"]\n' > "$work/Cargo.toml"
crate plain ""
crate annotated '#[idempotent(ttl = "24h", wait = true)]'
cd "$work"

# One build of one crate, in milliseconds of processor time, which depends little on other load.
once() {
    local name=$1 TIMEFORMAT='%U %S'
    shift
    touch "$name/src/main.rs"
    { time cargo "$@" -p "$name" >/dev/null 2>&1; } 2>&1 | awk '{ printf "%d\n", ($1 + $2) * 1000 }'
}

# The smallest of several builds, alternating between the crates.
compare() {
    local label=$1 plain=99999999 annotated=99999999 now
    shift
    cargo "$@"
    for _ in $(seq "$rounds"); do
        now=$(once plain "$@") && ((now < plain)) && plain=$now
        now=$(once annotated "$@") && ((now < annotated)) && annotated=$now
    done
    ratio "$label" "$plain" "$annotated" ms
}

ratio() {
    awk -v l="$1" -v p="$2" -v a="$3" -v u="$4" 'BEGIN { printf "%-10s plain %8d %s   annotated %8d %s   ratio %.2f\n", l, p, u, a, u, a / p }'
}

lines() {
    CARGO_PROFILE_RELEASE_DEBUG=0 cargo rustc --release -p "$1" -- --emit=llvm-ir -C codegen-units=1 -C no-prepopulate-passes
    cat "$CARGO_TARGET_DIR/release/deps/$1"-*.ll | wc -l
}

compare check check
compare debug build
compare release build --release
ratio LLVM "$(lines plain)" "$(lines annotated)" lines
