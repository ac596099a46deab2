//! What of an endpoint's text identifies it: a route template counts without the names of its parameters.
//!
//! `POST /orders/{id}` and `POST /orders/{order_id}` are one endpoint, because a deploy that renames a variable must
//! not execute again what was executed under the old name. Metrics and spans show the text as it is written.
//!
//! 1. A text that is a method, a space and a path is a route. Any other, such as a name in a policy, counts as it is.
//! 2. `{id}` is a parameter and `{*rest}` a wildcard, wherever they stand in a segment; `{{` and `}}` are literal
//!    braces.
//! 3. A segment `:id` is a parameter and a segment `*rest` a wildcard, as axum 0.7 wrote them. A colon or an asterisk
//!    further on in a segment, as in `/messages:send`, is literal.

use crate::digest::Framed;

/// What an endpoint says instead of a template where no router matched one. No template and no path begins like it.
pub(crate) const UNMATCHED: &str = "unmatched";

/// Writes what identifies this endpoint.
pub(crate) fn write(parts: &mut Framed, endpoint: &str) {
    for piece in pieces(endpoint) {
        match piece {
            Piece::Literal(text) => {
                parts.tag(1);
                parts.part(text);
            }
            Piece::Parameter => parts.tag(2),
            Piece::Wildcard => parts.tag(3),
        }
    }
    parts.tag(0);
}

/// Text between two parameters, or one of them.
enum Piece<'a> {
    Literal(&'a [u8]),
    Parameter,
    Wildcard,
}

/// The pieces of an endpoint, in their order. No two literals follow each other.
struct Pieces<'a> {
    rest: &'a [u8],
    /// How much of it comes before the template.
    before: usize,
    /// Whether a segment begins with it.
    segment: bool,
}

fn pieces(endpoint: &str) -> Pieces<'_> {
    let before = match endpoint.split_once(' ') {
        Some((method, path)) if path.starts_with('/') => method.len() + 1,
        _ => endpoint.len(),
    };
    Pieces {
        rest: endpoint.as_bytes(),
        before,
        segment: false,
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        if self.before == 0
            && let Some((piece, len)) = parameter(self.rest, self.segment)
        {
            (self.rest, self.segment) = (&self.rest[len..], false);
            return Some(piece);
        }
        let mut end = self.before;
        while let Some(byte) = self.rest.get(end) {
            let segment = end > 0 && self.rest[end - 1] == b'/';
            if end > 0 && parameter(&self.rest[end..], segment).is_some() {
                break;
            }
            let escaped = *byte == b'{' && self.rest.get(end + 1) == Some(&b'{');
            end += if escaped { 2 } else { 1 };
        }
        let (literal, rest) = self.rest.split_at(end);
        *self = Self {
            rest,
            before: 0,
            segment: literal.ends_with(b"/"),
        };
        Some(Piece::Literal(literal))
    }
}

/// The parameter with which this text begins, and the length of its own text.
fn parameter(text: &[u8], segment: bool) -> Option<(Piece<'static>, usize)> {
    let (sign, len) = match text {
        [b'{', b'{', ..] => return None,
        [b'{', sign, ..] => (sign, text.iter().position(|byte| *byte == b'}')? + 1),
        [sign @ (b':' | b'*'), next, ..] if segment && *next != b'/' => {
            let end = text.iter().position(|byte| *byte == b'/');
            (sign, end.unwrap_or(text.len()))
        }
        _ => return None,
    };
    let piece = if *sign == b'*' {
        Piece::Wildcard
    } else {
        Piece::Parameter
    };
    Some((piece, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line holds texts of one endpoint; no two lines hold the same.
    #[rustfmt::skip]
    const ENDPOINTS: &[&[&str]] = &[
        &["POST /p/{id}", "POST /p/{order_id}", "POST /p/:id", "POST /p/{größe}", "POST /p/:größe"],
        &["PUT /p/{id}", "PUT /p/:order"],
        &["POST /p/{*rest}", "POST /p/{*path}", "POST /p/*rest"],
        &["POST /p/{id}/", "POST /p/:id/"],
        &["POST /p/id"],
        &["POST /p/{{id}}"],
        &["POST /p/{{order_id}}"],
        &["POST /p/{{{id}}}", "POST /p/{{{order_id}}}"],
        &["POST /{a}/x/{b}", "POST /{b}/x/{a}", "POST /:a/x/{b}", "POST /:a/x/:b"],
        &["POST /{a}/{b}", "POST /:a/:b"],
        &["POST /{a}/{*b}", "POST /:a/*b"],
        &["POST /{a}{b}"],
        &["POST /{a}.json", "POST /{b}.json"],
        &["POST /v{a}", "POST /v{b}"],
        &["POST /messages:send"],
        &["POST /messages:cancel"],
        &["POST /:"],
        &["POST /*"],
        &["POST /:/x"],
        &["POST /{"],
        &["POST /{open"],
        &["POST /"],
        &["POST unmatched"],
        &["PUT unmatched"],
        &["pay"],
        &["pay {id}"],
        &["pay {order_id}"],
        &["{id}"],
        &[":id"],
        &[""],
        &[" /{id}", " /:id"],
    ];

    fn identity(endpoint: &str) -> [u8; 32] {
        let mut parts = Framed::sha256("test");
        write(&mut parts, endpoint);
        parts.finish()
    }

    #[test]
    fn endpoints_are_equal_exactly_if_only_names_of_parameters_differ() {
        let mut seen: Vec<([u8; 32], &str)> = Vec::new();
        for texts in ENDPOINTS {
            let first = identity(texts[0]);
            for text in *texts {
                assert_eq!(identity(text), first, "{text:?} is {:?}", texts[0]);
            }
            let other = seen.iter().find(|(identity, _)| *identity == first);
            assert_eq!(other, None, "{:?} is another endpoint", texts[0]);
            seen.push((first, texts[0]));
        }
    }
}
