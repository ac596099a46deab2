//! The syntax of one option: `name`, `name = value` or `name(…)`, whatever its name means.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Error, Lit, LitBool, LitStr, parse::Parse};

use crate::{errors::Errors, suggest, tokens::split};

/// The words that an option takes, and what each means.
pub(crate) type Choices<T> = &'static [(&'static str, T)];

/// One setting as it was written.
pub(crate) struct Setting {
    pub(crate) name: Ident,
    value: Value,
}

enum Value {
    /// `name`
    Bare,
    /// `name = value`, with the value's tokens, of which there is at least one.
    Equals(TokenStream),
    /// `name(…)`
    List(Group),
}

/// Reads each setting. A mistake in one leaves the others.
pub(crate) fn settings(tokens: TokenStream, errors: &mut Errors) -> Vec<Setting> {
    let mut settings = Vec::new();
    for tokens in split(tokens) {
        if let Some(setting) = errors.ok(Setting::read(tokens)) {
            settings.push(setting);
        }
    }
    settings
}

impl Setting {
    /// Reads what stands between two commas.
    fn read(tokens: Vec<TokenTree>) -> syn::Result<Self> {
        let mut tokens = tokens.into_iter();
        let name = match tokens.next() {
            Some(TokenTree::Ident(name)) => name,
            Some(TokenTree::Punct(comma)) if comma.as_char() == ',' => {
                return Err(Error::new(comma.span(), "unexpected `,`: remove it"));
            }
            other => {
                let at = other.map_or_else(Span::mixed_site, |token| token.span());
                return Err(Error::new(
                    at,
                    "expected an option's name, as in `ttl = \"24h\"`",
                ));
            }
        };
        let value = match tokens.next() {
            None => Value::Bare,
            Some(TokenTree::Punct(equals)) if equals.as_char() == '=' => {
                let value: Vec<TokenTree> = tokens.by_ref().collect();
                match value.as_slice() {
                    [] => {
                        return Err(Error::new(
                            equals.span(),
                            format!("expected a value after `{name} =`, as in `ttl = \"24h\"`"),
                        ));
                    }
                    [TokenTree::Literal(_), next @ TokenTree::Ident(_), ..] => {
                        return Err(Error::new(
                            next.span(),
                            "expected `,` before the next option",
                        ));
                    }
                    _ => Value::Equals(value.into_iter().collect()),
                }
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
                Value::List(group)
            }
            Some(TokenTree::Punct(colon)) if colon.as_char() == ':' => {
                return Err(Error::new(
                    colon.span(),
                    format!("unexpected `:` after `{name}`: write `{name} = …`"),
                ));
            }
            Some(other) => {
                return Err(Error::new(
                    other.span(),
                    format!("expected `,`, `=` or `(` after `{name}`"),
                ));
            }
        };
        match tokens.next() {
            Some(extra) => Err(Error::new(
                extra.span(),
                format!("expected `,` after `{name}(…)`"),
            )),
            None => Ok(Self { name, value }),
        }
    }

    /// Where the value is, or the name where there is none.
    pub(crate) fn at(&self) -> Span {
        match &self.value {
            Value::Bare => self.name.span(),
            Value::Equals(value) => value
                .clone()
                .into_iter()
                .next()
                .map_or(self.name.span(), |token| token.span()),
            Value::List(group) => group.span(),
        }
    }

    /// The error for a value of the wrong kind.
    pub(crate) fn wrong(&self, takes: &str) -> Error {
        let message = format!("`{}` takes {takes}", self.name);
        match &self.value {
            Value::Bare => Error::new(self.name.span(), message),
            Value::Equals(value) => Error::new_spanned(value, message),
            Value::List(group) => Error::new_spanned(group, message),
        }
    }

    /// `name`, `name = true` or `name = false`.
    pub(crate) fn flag(&self) -> syn::Result<bool> {
        match &self.value {
            Value::Bare => Ok(true),
            Value::Equals(value) => syn::parse2::<LitBool>(value.clone())
                .map(|flag| flag.value)
                .map_err(|_| self.not_a_flag()),
            Value::List(_) => Err(self.not_a_flag()),
        }
    }

    /// `name = "…"`.
    pub(crate) fn text(&self, takes: &str) -> syn::Result<LitStr> {
        match &self.value {
            Value::Equals(value) => syn::parse2(value.clone()).map_err(|_| self.wrong(takes)),
            Value::Bare | Value::List(_) => Err(self.wrong(takes)),
        }
    }

    /// Whether it is `name = "…"`.
    pub(crate) fn is_text(&self) -> bool {
        matches!(&self.value, Value::Equals(value) if matches!(syn::parse2(value.clone()), Ok(Lit::Str(_))))
    }

    /// Whether it is `name(…)`.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    /// `name = "…"`, one of the given words. An error lists them, and then `or`: what else the option takes.
    pub(crate) fn choice<T: Copy>(&self, choices: Choices<T>, or: &str) -> syn::Result<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let expected = suggest::one_of(words()).replace('`', "\"") + or;
        let text = self.text(&expected)?;
        let word = text.value();
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
            return Ok(*choice);
        }
        let hint = suggest::nearest(&word, words())
            .map_or_else(String::new, |meant| format!("; did you mean \"{meant}\"?"));
        Err(Error::new(
            text.span(),
            format!("`{}` takes {expected}{hint}", self.name),
        ))
    }

    /// Whether it is `name = …`.
    pub(crate) fn has_value(&self) -> bool {
        matches!(self.value, Value::Equals(_))
    }

    /// `name = <a path, a type>`.
    pub(crate) fn parsed<T: Parse>(&self, takes: &str) -> syn::Result<T> {
        match &self.value {
            Value::Equals(value) => syn::parse2(value.clone()).map_err(|_| self.wrong(takes)),
            Value::Bare | Value::List(_) => Err(self.wrong(takes)),
        }
    }

    /// `name(…)`, not empty.
    pub(crate) fn list(&self, takes: &str) -> syn::Result<TokenStream> {
        match &self.value {
            Value::List(group) if !group.stream().is_empty() => Ok(group.stream()),
            _ => Err(self.wrong(takes)),
        }
    }

    /// `name("…", "…")`, `name(1, 2)`: literals of one kind, not empty.
    pub(crate) fn literals<T: Parse>(&self, takes: &str) -> syn::Result<Vec<T>> {
        let literal = |tokens: Vec<TokenTree>| {
            let tokens: TokenStream = tokens.into_iter().collect();
            let at = if tokens.is_empty() {
                self.name.to_token_stream()
            } else {
                tokens.clone()
            };
            syn::parse2(tokens)
                .map_err(|_| Error::new_spanned(at, format!("`{}` takes {takes}", self.name)))
        };
        split(self.list(takes)?).into_iter().map(literal).collect()
    }

    fn not_a_flag(&self) -> Error {
        self.wrong("`true` or `false`, or nothing for `true`")
    }
}
