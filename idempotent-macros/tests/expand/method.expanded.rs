async fn handler(&self) -> String {
    self.name.clone()
}
::core::compile_error! {
    "a handler cannot take `self`: take the value as `State(…)`, or annotate a function that calls the method"
}
