//! The server that `http.sh` measures: the bare and the annotated routes, on one thread and a free port.

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    idempotent_bench::app::serve(idempotent_bench::app::router()).await
}
