//! The contract holds in every state that the bounds reach, and each of its rules is needed.

mod contract;
mod rules;
mod store_faults;
