//! Multipart bodies, compared by their parts.
//!
//! Every client makes up a new boundary for each attempt, so the delimiters between the parts do not count
//! (RFC 2046, section 5.1.1). Everything else does, in its order: the headers of each part, which hold its name, its file
//! name and its type, its bytes, and what stands before the first and after the last delimiter. A part that is itself
//! multipart is compared in the same way.
//!
//! The body is already whole and is hashed where it is; `httparse`, which hyper uses, reads the headers of the parts.

use httparse::{EMPTY_HEADER, Status, parse_headers};
use memchr::memmem::Finder;

use super::media::{self, MediaType, lower};
use crate::digest::Framed;

/// How deep multipart bodies in multipart bodies are read.
const MAX_DEPTH: usize = 4;

/// How many header lines a part may have.
const MAX_HEADERS: usize = 32;

/// The digest of a multipart body, or `None` if it cannot be parsed: its caller then falls back to the bytes.
pub(super) fn digest(body: &[u8], boundary: &[u8]) -> Option<[u8; 32]> {
    let mut hash = Framed::sha256("idempotent/multipart/v1");
    feed(&mut hash, body, boundary, MAX_DEPTH)?;
    Some(hash.finish())
}

fn feed(hash: &mut Framed, body: &[u8], boundary: &[u8], depth: usize) -> Option<()> {
    if boundary.is_empty() {
        return None;
    }
    let delimiter = [b"\r\n--", boundary].concat();
    let finder = Finder::new(&delimiter);
    // The first delimiter needs no line break before it, if nothing else is there.
    let (before, mut rest) = match body.strip_prefix(&delimiter[2..]) {
        Some(rest) => (&body[..0], rest),
        None => split(body, &finder)?,
    };
    // Some parsers find the delimiter there, too: then they see other parts than these.
    if Finder::new(&delimiter[2..]).find(before).is_some() {
        return None;
    }
    hash.part(before);
    loop {
        if let Some(after) = rest.strip_prefix(b"--") {
            hash.tag(0);
            hash.part(after);
            return Some(());
        }
        let part = skip_padding(rest).strip_prefix(b"\r\n")?;
        let (part, after) = split(part, &finder)?;
        hash.tag(1);
        feed_part(hash, part, depth)?;
        rest = after;
    }
}

/// What comes before the next delimiter, and what after it.
fn split<'a>(text: &'a [u8], delimiter: &Finder<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let at = delimiter.find(text)?;
    Some((&text[..at], &text[at + delimiter.needle().len()..]))
}

fn skip_padding(text: &[u8]) -> &[u8] {
    let padding = |byte: &u8| matches!(byte, b' ' | b'\t');
    let len = text.iter().take_while(|byte| padding(byte)).count();
    &text[len..]
}

fn feed_part(hash: &mut Framed, part: &[u8], depth: usize) -> Option<()> {
    let mut lines = [EMPTY_HEADER; MAX_HEADERS];
    let Ok(Status::Complete((end, lines))) = parse_headers(part, &mut lines) else {
        return None;
    };
    // A line feed alone ends the head for this parser and not for others, which then see another body.
    let head = &part[..end];
    let ends_alone = |at: usize| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r');
    if (0..head.len()).any(ends_alone) {
        return None;
    }
    let mut headers: Vec<_> = lines
        .iter()
        .map(|line| (lower(line.name.as_bytes()), line.value))
        .collect();
    // Stable, so that lines of the same name keep their order.
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    hash.count(headers.len());
    let mut types = Vec::new();
    for (name, value) in &headers {
        hash.part(name);
        if **name == *b"content-type" {
            media::write(hash, value);
            types.extend(MediaType::parse(value));
        } else {
            hash.part(value.trim_ascii());
        }
    }
    let body = &part[end..];
    if let [media_type] = &*types
        && let (Some(boundary), Some(depth)) = (media_type.boundary(), depth.checked_sub(1))
    {
        hash.tag(1);
        return feed(hash, body, boundary, depth);
    }
    hash.tag(0);
    hash.part(body);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--B\r\nContent-Disposition: form-data; name=\"amount\"\r\n\r\n100\r\n\
        --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n\
        one\r\ntwo\r\n--B--\r\n";

    fn of(body: &str, boundary: &str) -> Option<[u8; 32]> {
        digest(body.as_bytes(), boundary.as_bytes())
    }

    fn is(body: &str, boundary: &str) {
        assert_eq!(of(body, boundary), of(FORM, "B"), "{body}");
    }

    #[test]
    fn the_boundary_and_the_spelling_of_headers_do_not_count() {
        assert!(of(FORM, "B").is_some());
        for boundary in [
            "C",
            "----WebKitFormBoundary7MA4YWxkTrZu0gW",
            "x-(.)-y",
            "B B",
        ] {
            is(&FORM.replace("--B", &format!("--{boundary}")), boundary);
        }
        is(
            &FORM.replace("Content-Disposition:", "content-DISPOSITION:  "),
            "B",
        );
        is(
            &FORM.replace("text/plain", "Text/Plain; charset=utf-8"),
            "B",
        );
        is(&FORM.replace("--B\r\nC", "--B \t\r\nC"), "B");
        let swapped = FORM.replace("Content-Type: text/plain\r\n", "");
        is(
            &swapped.replacen("; name=\"file\"", "\u{1}", 1).replace(
                "Content-Disposition: form-data\u{1}",
                "Content-Type: text/plain\r\nContent-Disposition: form-data; name=\"file\"",
            ),
            "B",
        );
    }

    #[test]
    fn everything_else_counts() {
        let swapped = {
            let parts: Vec<_> = FORM.split("--B").collect();
            ["", parts[2], parts[1], parts[3]].join("--B")
        };
        let mut others = vec![swapped];
        for (from, to) in [
            ("100", "101"),
            ("100", ""),
            ("\"amount\"", "\"Amount\""),
            ("a.txt", "b.txt"),
            ("; filename=\"a.txt\"", ""),
            ("text/plain", "text/csv"),
            ("Content-Type: text/plain\r\n", ""),
            (
                "Content-Type: text/plain\r\n",
                "Content-Type: text/plain\r\nContent-ID: 1\r\n",
            ),
            ("one\r\ntwo", "one\ntwo"),
            ("one\r\ntwo", "one\r\ntwo\r\n"),
            ("--B--\r\n", "--B--"),
            ("--B--\r\n", "--B--\r\nmore"),
            ("--B--", "--B\r\n\r\n\r\n--B--"),
        ] {
            let other = FORM.replacen(from, to, 1);
            assert_ne!(other, FORM);
            others.push(other);
        }
        others.push(format!("before\r\n{FORM}"));
        let mut seen = vec![of(FORM, "B")];
        for other in others {
            let digest = of(&other, "B");
            assert!(digest.is_some() && !seen.contains(&digest), "{other}");
            seen.push(digest);
        }
    }

    #[test]
    fn a_multipart_body_in_a_part_is_compared_by_its_parts() {
        let nested = |inner: &str, value: &str| {
            format!(
                "--B\r\nContent-Type: multipart/mixed; boundary={inner}\r\n\r\n\
                 --{inner}\r\n\r\n{value}\r\n--{inner}--\r\n--B--"
            )
        };
        assert!(of(&nested("x", "1"), "B").is_some());
        assert_eq!(of(&nested("x", "1"), "B"), of(&nested("y", "1"), "B"));
        assert_ne!(of(&nested("x", "1"), "B"), of(&nested("x", "2"), "B"));
    }

    #[test]
    fn what_cannot_be_parsed_has_no_digest() {
        for end in [0, 1, 3, 10, 60, FORM.len() - 4] {
            assert_eq!(of(&FORM[..end], "B"), None, "{end}");
        }
        for (from, to) in [
            ("--B\r\nC", "--B\nC"),
            ("--B\r\nC", "--Bx\r\nC"),
            ("\r\n\r\n100", "\r\n100"),
            ("Content-Disposition:", "Content Disposition:"),
            ("--B--", "--B"),
            // Other parsers see another body, or other parts.
            ("\r\n\r\n100", "\n\nX\r\n\r\n100"),
            ("--B\r\nC", "x--B\r\nC"),
        ] {
            assert_eq!(of(&FORM.replacen(from, to, 1), "B"), None, "{to:?}");
        }
        assert_eq!(of(FORM, ""), None);
        assert_eq!(of(FORM, "C"), None);
        assert_eq!(of("", "B"), None);
        let many = format!("--B\r\n{}\r\n--B--", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(of(&many, "B"), None);
    }
}
