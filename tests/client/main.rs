//! The client of the feature `client`, against this library and servers of other kinds (DESIGN.md, section 7).

mod cuts;
mod proxy;
mod servers;
