//! A response as it is stored: which parts of it, and in which form.
//!
//! [`StoredResponse`] says what is kept. The form is
//!
//! ```text
//! version  u8     1
//! status   u16    all numbers are big-endian
//! headers  u16    how many follow
//!          u16 length of the name, u32 length of the value, name, value
//! body     u64    its length, then its bytes, then nothing
//! ```
//!
//! It is one allocation of exactly this size, shared by all clones: reading it back copies neither values
//! nor body. [`StoredResponse::from_bytes`] accepts nothing that breaks the form. On hostile bytes it neither
//! panics nor allocates more than their length justifies.
//!
//! During a deployment several versions of a service read the same records. Therefore a new form gets a new version
//! byte, and the old one stays readable.
//!
//! ```text
//! stored    the public type
//! filter    which headers are kept; kept is a route's choice among them
//! limits    how much is kept
//! codec     the form above, written and read
//! seal      the form around it: compression and encryption; keyring has the keys
//! form      what these share: first bytes, positions, and what can be wrong
//! ```

mod codec;
mod filter;
mod form;
mod kept;
#[cfg(feature = "encryption")]
mod keyring;
mod limits;
mod seal;
mod stored;

#[cfg(feature = "grpc")]
pub(crate) use filter::is_never_stored;
pub(crate) use filter::{check_name, check_names};
pub(crate) use form::Binding;
pub(crate) use kept::StoredHeaders;
#[cfg(feature = "encryption")]
pub use keyring::Keyring;
pub use limits::NotStorable;
pub(crate) use limits::ResponseLimits;
pub(crate) use seal::Sealer;
pub use stored::{CorruptResponse, StoredResponse};
