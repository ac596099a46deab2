//! The secrets under which records are made and found.

use super::build_error::BuildError;
use crate::scope::Digester;

/// A shorter one can be guessed.
const SHORTEST: usize = 16;

/// One secret, and another one while it is rotated.
#[derive(Default)]
pub(super) struct Secrets {
    /// Records are made under this one.
    own: Secret,
    /// Records that were made under this one are found, too.
    other: Option<Secret>,
}

/// The key of an HMAC, or none.
#[derive(Default)]
struct Secret(Option<Vec<u8>>);

impl Secrets {
    pub(super) fn set_own(&mut self, secret: Vec<u8>) {
        self.own = Secret(Some(secret));
    }

    pub(super) fn set_other(&mut self, secret: Option<Vec<u8>>) {
        self.other = Some(Secret(secret));
    }

    /// The digester of the own secret, and of the other one if there is any.
    pub(super) fn digesters(&self) -> Result<(Digester, Option<Digester>), BuildError> {
        let own = self.own.digester()?;
        let other = self.other.as_ref().map(Secret::digester).transpose()?;
        if other.as_ref().is_some_and(|other| own.is_same_as(other)) {
            return Err(BuildError::SameSecret);
        }
        Ok((own, other))
    }
}

impl Secret {
    fn digester(&self) -> Result<Digester, BuildError> {
        let secret = self.0.as_deref();
        match secret.map(<[u8]>::len) {
            Some(length) if length < SHORTEST => Err(BuildError::ShortSecret { length }),
            _ => Ok(Digester::new(secret)),
        }
    }
}
