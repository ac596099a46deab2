#[idempotent]
async fn handler(&self) -> String {
    self.name.clone()
}
