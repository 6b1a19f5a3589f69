//! Texts as they may be printed: without credentials in URLs and examples.

use std::borrow::Cow;

use crate::values::secret::{HIDDEN, is_secret_name, masked_url, without_user};

/// The value of an option, which may be a URL.
pub(super) fn value(text: &str) -> Cow<'_, str> {
    match without_user(text) {
        Cow::Borrowed(text) => url(text),
        Cow::Owned(text) => url(&text).into_owned().into(),
    }
}

/// A URL.
pub(super) fn url(text: &str) -> Cow<'_, str> {
    masked_url(text, HIDDEN, is_secret_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_texts() {
        for (text, expected) in [
            ("http://u:p@a/x?key=1&b", "http://a/x?key=(hidden)&b"),
            ("/health?who=me&auth_token=x", "/health?who=me&auth_token=(hidden)"),
            ("https://a/$1?password=x", "https://a/$1?password=(hidden)"),
            ("^/a?b=c", "^/a?b=c"),
            ("http://u:pa/ss@a:80/?jwt=x&b=c", "http://a:80/?jwt=(hidden)&b=c"),
            ("/health?signature=x&design=y", "/health?signature=(hidden)&design=y"),
            ("http://host:80/a@b", "http://host:80/a@b"),
        ] {
            assert_eq!(value(text), expected);
        }
        assert_eq!(url("http://a/?page=1&token=x"), "http://a/?page=1&token=(hidden)");
    }
}
