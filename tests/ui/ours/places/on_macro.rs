#![allow(unused)]

use idempotent_runtime::idempotent;

#[idempotent]
macro_rules! payment {
    () => {};
}

fn main() {}
