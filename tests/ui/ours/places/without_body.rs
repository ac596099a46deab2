use idempotent_runtime::idempotent;

trait Api {
    #[idempotent]
    async fn handler();
}

fn main() {}
