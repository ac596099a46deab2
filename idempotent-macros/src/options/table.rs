//! How a table of options is written and applied, and the error for a name that is not in it.

use proc_macro2::{Span, TokenStream};
use syn::Error;

use super::{
    setting::{Setting, settings},
    synonyms::{self, Meant},
};
use crate::{errors::Errors, suggest};

/// A value and its place.
pub(crate) struct Given<T> {
    pub(crate) value: T,
    /// The option's name.
    pub(crate) name: Span,
    /// The value, or the name where there is none.
    pub(crate) at: Span,
}

/// One option: its name, and how it is read into its field.
pub(super) struct Entry<O> {
    pub(super) name: &'static str,
    pub(super) read: fn(&mut O, &Setting) -> syn::Result<()>,
}

/// Defines a struct with a field for each option, and the table that reads them.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $vis:vis $table:ident: $options:ident { $($name:literal => $field:ident: $value:ty = $read:expr),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(crate) struct $options {
            $(pub(crate) $field: Option<Given<$value>>),*
        }

        $vis const $table: &[Entry<$options>] = &[$(
            Entry {
                name: $name,
                read: |options, setting| {
                    let read: fn(&Setting) -> syn::Result<$value> = $read;
                    options.$field = Some(Given {
                        value: read(setting)?,
                        name: setting.name.span(),
                        at: setting.at(),
                    });
                    Ok(())
                },
            }
        ),*];
    };
}
pub(super) use table;

/// Reads each setting by its entry in the table, the first one of each name.
pub(super) fn read_all<O: Default>(
    table: &[Entry<O>],
    tokens: TokenStream,
    kind: &str,
    errors: &mut Errors,
) -> O {
    let mut options = O::default();
    let mut seen = Vec::new();
    for setting in settings(tokens, errors) {
        let name = setting.name.to_string();
        let Some(entry) = table.iter().find(|entry| entry.name == name) else {
            errors.push(unknown(table, &setting, kind));
            continue;
        };
        if seen.contains(&entry.name) {
            errors.push(Error::new(
                setting.name.span(),
                format!("`{name}` is given twice: keep one"),
            ));
            continue;
        }
        seen.push(entry.name);
        errors.ok((entry.read)(&mut options, &setting));
    }
    options
}

/// The error for a name that is not in the table.
fn unknown<O>(table: &[Entry<O>], setting: &Setting, kind: &str) -> Error {
    let name = setting.name.to_string();
    let names = || table.iter().map(|entry| entry.name);
    let did_you_mean = |meant: &str| format!("unknown {kind} `{name}`: did you mean `{meant}`?");
    let synonym = synonyms::meant(&name).filter(|_| kind == "option");
    let message = match (synonym, suggest::nearest(&name, names())) {
        (Some(Meant::Elsewhere(advice)), _) => format!("unknown {kind} `{name}`: {advice}"),
        (Some(Meant::Option(meant)), _) => did_you_mean(meant),
        (None, Some(meant)) => did_you_mean(meant),
        (None, None) => format!(
            "unknown {kind} `{name}`: expected {}",
            suggest::one_of(names())
        ),
    };
    Error::new(setting.name.span(), message)
}
