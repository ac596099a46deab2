//! The tests of the workspace, in the folders beside `src`; `README.md` there says which test is for which rule. The
//! library itself only runs the code of the workspace's README as doctests.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

#[cfg(test)]
mod readme;
