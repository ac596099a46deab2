async fn handler(&self) -> String {
    self.name.clone()
}
::core::compile_error! {
    "a handler takes no `self`: take the value as `State(…)`, or annotate a function that calls the method"
}
