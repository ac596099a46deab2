use async_trait::async_trait;
use idempotent_runtime::idempotent;

#[async_trait]
trait Api {
    async fn create();
}

struct Books;

#[async_trait]
impl Api for Books {
    #[idempotent]
    async fn create() {}
}

fn main() {}
