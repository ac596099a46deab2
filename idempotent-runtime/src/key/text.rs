//! The text of a key, without an allocation where it is as short as most keys are.

/// How many bytes are kept in place: a UUID has 36.
const SHORT: usize = 38;

/// A text of any length that never changes.
#[derive(Clone)]
pub(super) enum Text {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

impl Text {
    pub(super) fn as_str(&self) -> &str {
        match self {
            // Invariant: the bytes were a `str`.
            Self::Short { len, bytes } => std::str::from_utf8(&bytes[..usize::from(*len)])
                .expect("they were copied from a text"),
            Self::Long(text) => text,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(short), Ok(len)) => {
                short.copy_from_slice(text.as_bytes());
                Self::Short { len, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_was_made_of() {
        for len in [0, 1, SHORT - 1, SHORT, SHORT + 1, 255] {
            let text = "ü".repeat(len / 2) + &"k".repeat(len % 2);
            let kept = Text::from(&*text);
            assert_eq!(kept.as_str(), text);
            assert_eq!(kept.as_bytes(), text.as_bytes());
            assert_eq!(matches!(kept, Text::Short { .. }), len <= SHORT);
            assert!(kept == Text::from(&*text));
            assert!(kept != Text::from(&*(text + "k")));
        }
    }
}
