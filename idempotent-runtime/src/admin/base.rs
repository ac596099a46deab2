//! The page, told where it is.

use axum::extract::OriginalUri;
use http::request::Parts;

const PAGE: &str = include_str!("page/index.html");
/// Where the page's links begin. A test checks that the page has it.
pub(super) const BASE: &str = "{base}";

/// The page. Its links are relative to a base, because a router does not know the prefix by which a proxy in front of it
/// is called: relative to `/admin/` they are as they are, relative to `/admin` they begin with its last segment.
pub(super) fn page(parts: &Parts) -> String {
    let original = parts.extensions.get::<OriginalUri>();
    let path = original.map_or_else(|| parts.uri.path(), |original| original.0.path());
    let segment = path.rsplit('/').next().unwrap_or_default();
    let base = if segment.is_empty() {
        "./".to_owned()
    } else {
        format!("./{}/", escaped(segment))
    };
    PAGE.replacen(BASE, &base, 1)
}

/// A segment of a path, inside of an attribute.
fn escaped(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for letter in segment.chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '"' => text.push_str("&quot;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base_at(path: &str) -> String {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.uri = http::Uri::try_from(path).unwrap();
        let page = page(&parts);
        let (_, rest) = page.split_once("<base href=\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    #[test]
    fn the_links_of_the_page_begin_where_it_is() {
        assert_eq!(base_at("/"), "./");
        assert_eq!(base_at("/ops/admin/"), "./");
        assert_eq!(base_at("/ops/admin"), "./admin/");
        assert_eq!(base_at("/a\"b&c"), "./a&quot;b&amp;c/");
    }
}
