use idempotent_runtime::idempotent;

trait Api {
    fn create() -> impl Future<Output = String> + Send;
}

struct Books;

impl Api for Books {
    #[idempotent]
    async fn create() -> String {
        String::new()
    }
}

fn main() {}
