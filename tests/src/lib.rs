//! The tests of the workspace, in rooms beside this file. The library itself only makes the README's code run
//! as a test.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
