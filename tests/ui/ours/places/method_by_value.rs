use idempotent_runtime::idempotent;

struct Api;

impl Api {
    #[idempotent]
    async fn handler(mut self: Box<Self>) {
        *self = Api;
    }
}

fn main() {}
