//! DNS names, and the patterns that policies write for them.

use std::fmt;

/// Longest name or pattern that an object may have, in characters.
const MAX_LENGTH: usize = 255;

/// Names that a rule is about, in one form: lower case, with a dot at the end.
///
/// - Without an asterisk: exactly this name.
/// - `*` is any number of letters, digits, `-` and `_` inside of one label, none of them as well: `*foo.io` matches `foo.io`
///   and `afoo.io`, not `a.foo.io`.
/// - `**.` at the start is one label or more: `**.foo.io` matches `a.foo.io` and `a.b.foo.io`, not `foo.io`.
/// - Nothing but asterisks: every name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern(String);

/// Why a text is no name or no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a DNS {what}: it has 1 to {MAX_LENGTH} letters, digits, '-', '_'{stars} and single dots"
)]
pub struct InvalidName {
    text: String,
    what: &'static str,
    stars: &'static str,
}

impl NamePattern {
    /// Every name.
    pub fn every() -> Self {
        Self(String::from("*"))
    }

    /// One name. Upper and lower case are alike, and a dot at the end does not matter.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn name(text: &str) -> Result<Self, InvalidName> {
        if is_made_of(text, is_ordinary) {
            Ok(Self(absolute(text)))
        } else {
            Err(InvalidName { text: text.to_owned(), what: "name", stars: "" })
        }
    }

    /// Names in which asterisks stand for characters; also one without any.
    ///
    /// # Errors
    /// [`InvalidName`].
    pub fn pattern(text: &str) -> Result<Self, InvalidName> {
        if !is_made_of(text, |c| is_ordinary(c) || c == b'*') {
            return Err(InvalidName { text: text.to_owned(), what: "pattern", stars: ", '*'" });
        }
        let is_every = text.trim_end_matches('.').bytes().all(|c| c == b'*');
        Ok(if is_every { Self::every() } else { Self(absolute(text)) })
    }

    /// The pattern as text, as [`NamePattern::pattern`] takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every name matches.
    pub fn is_every(&self) -> bool {
        self.0 == "*"
    }

    /// Whether a name matches, in the form of [`absolute`].
    pub fn matches(&self, name: &str) -> bool {
        if self.is_every() {
            return true;
        }
        let (deep, pattern) = match self.0.strip_prefix("**.") {
            Some(rest) => (true, rest),
            None => (false, self.0.as_str()),
        };
        let mut names = name.rsplit('.');
        let fits = pattern.rsplit('.').all(|pattern| names.next().is_some_and(|name| fits(pattern, name)));
        let mut rest = names.peekable();
        let rest_fits =
            if deep { rest.peek().is_some() && rest.all(is_plain_label) } else { rest.peek().is_none() };
        fits && rest_fits
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name as it is compared: lower case, with a dot at the end.
pub fn absolute(name: &str) -> String {
    let mut name = name.to_ascii_lowercase();
    if !name.ends_with('.') {
        name.push('.');
    }
    name
}

fn is_ordinary(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')
}

fn is_plain_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(is_ordinary)
}

fn is_made_of(text: &str, allowed: impl Fn(u8) -> bool + Copy) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let mut all = labels.map(|label| !label.is_empty() && label.bytes().all(allowed));
    (1..=MAX_LENGTH).contains(&text.len()) && all.all(|good| good)
}

/// Whether a label fits into one of a pattern. Inside of a label it is enough to go back to the last asterisk.
fn fits(pattern: &str, label: &str) -> bool {
    let (pattern, label) = (pattern.as_bytes(), label.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // After the last asterisk: where the pattern goes on, and how much of the label the asterisk took.
    let mut star: Option<(usize, usize)> = None;
    while seen < label.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, seen));
        } else if pattern.get(at) == Some(&label[seen]) {
            at += 1;
            seen += 1;
        } else if let Some((after, taken)) = star.filter(|(_, taken)| is_ordinary(label[*taken])) {
            star = Some((after, taken + 1));
            at = after;
            seen = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(pattern: &str, name: &str) -> bool {
        NamePattern::pattern(pattern).unwrap().matches(&absolute(name))
    }

    #[test]
    fn names_are_compared_without_case_and_with_a_dot() {
        let name = NamePattern::name("Cilium.IO").unwrap();
        assert_eq!(name.as_str(), "cilium.io.");
        assert_eq!(name, NamePattern::name("cilium.io.").unwrap());
        for (text, expected) in
            [("cilium.io", true), ("CILIUM.io.", true), ("www.cilium.io", false), ("io", false), (".", false)]
        {
            assert_eq!(name.matches(&absolute(text)), expected, "{text}");
        }
    }

    #[test]
    fn asterisks_stay_inside_of_a_label() {
        for (pattern, name, expected) in [
            ("*foo.io", "foo.io", true),
            ("*foo.io", "afoo.io", true),
            ("*foo.io", "a.foo.io", false),
            ("*.cilium.io", "sub.cilium.io", true),
            ("*.cilium.io", "cilium.io", false),
            ("*.cilium.io", "a.b.cilium.io", false),
            ("sub*.cilium.io", "subdomain.cilium.io", true),
            ("sub*.cilium.io", "sub.cilium.io", true),
            ("a*b*c.io", "abbc.io", true),
            ("a*b*c.io", "acb.io", false),
            ("a*a.io", "a.io", false),
            ("a*a.io", "aaxa.io", true),
            ("www.*.io", "www.x-y_z.io", true),
            ("x.io", "X.io.", true),
            ("*.io", "a\\.b.io", false),
            ("*.io", "a\u{e4}.io", false),
        ] {
            assert_eq!(matched(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn two_asterisks_in_front_are_whole_labels() {
        for (name, expected) in [
            ("a.cilium.io", true),
            ("a.b.cilium.io", true),
            ("cilium.io", false),
            ("xcilium.io", false),
            ("a\\032b.c.cilium.io", false),
        ] {
            assert_eq!(matched("**.cilium.io", name), expected, "{name}");
        }
        assert!(matched("**foo.io", "barfoo.io"));
        assert!(!matched("a.**.io", "a.b.c.io"));
    }

    #[test]
    fn asterisks_alone_are_every_name() {
        for pattern in ["*", "**", "*.", "***."] {
            assert!(NamePattern::pattern(pattern).unwrap().is_every(), "{pattern}");
            for name in ["a", "a.b.c", ".", "x\\032y.io"] {
                assert!(matched(pattern, name), "{pattern} {name}");
            }
        }
        assert!(!NamePattern::pattern("*.*").unwrap().is_every());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", ".", "a..b", ".a", "a b", "a*", "\u{e4}.io", &"a".repeat(256)] {
            assert!(NamePattern::name(text).is_err(), "{text:?}");
        }
        for text in ["", ".", "*..a", "a?", "[a]"] {
            assert!(NamePattern::pattern(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn many_asterisks_are_no_trap() {
        assert!(!matched(&format!("{}b.io", "a*".repeat(120)), &format!("{}.io", "a".repeat(250))));
    }
}
