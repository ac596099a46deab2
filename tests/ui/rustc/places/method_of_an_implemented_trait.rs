use idempotent_runtime::idempotent;

trait Api {
    fn create(amount: String) -> impl Future<Output = String> + Send;
}

struct Books;

impl Api for Books {
    #[idempotent]
    async fn create(amount: String) -> String {
        amount
    }
}

fn main() {}
