#![allow(unused)]

use idempotent_runtime::idempotent;

#[idempotent]
use std::fmt::Debug as _;

fn main() {}
