//! The server that `http.sh` measures: the bare and the annotated routes, on one thread and a free port.

use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, idempotent_bench::app::router()).await
}
