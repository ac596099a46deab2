//! stub
#![allow(dead_code, missing_docs)]
