//! The regular expressions that label filters are written in, as far as they are used there.
//!
//! A pattern is matched at the start of a key; the length of the match decides between filters. Supported are
//! literal characters, `.`, `\` before any punctuation, the repetitions `*`, `+` and `?` after one character, `^` at
//! the start and `$` at the end. Groups, classes and counts are refused: with them a filter would be a program.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// What it begins with, as far as that is nothing but characters: few texts get further.
    start: String,
    /// What follows.
    atoms: Vec<Atom>,
    /// The longest row of characters among these: without it nothing matches.
    needle: String,
    to_end: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Atom {
    /// `None` is any character.
    character: Option<char>,
    min: usize,
    max: usize,
}

impl Pattern {
    /// Reads a pattern; the error is a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pattern =
            Self { start: String::new(), atoms: Vec::new(), needle: String::new(), to_end: false };
        let mut rest = text.strip_prefix('^').unwrap_or(text).chars();
        while let Some(c) = rest.next() {
            if pattern.to_end {
                return Err(String::from("nothing can follow $"));
            }
            match c {
                '$' => pattern.to_end = true,
                '*' | '+' | '?' => pattern.repeat(c)?,
                '.' => pattern.push(None),
                '\\' => pattern.push(Some(escaped(rest.next())?)),
                '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' => return Err(format!("{c} is not supported")),
                c => pattern.push(Some(c)),
            }
        }
        if pattern.atoms.is_empty() {
            return Err(String::from("the pattern is empty"));
        }
        let plain = pattern.atoms.iter().take_while(|atom| atom.literal().is_some()).count();
        pattern.start = pattern.atoms.drain(..plain).filter_map(|atom| atom.literal()).collect();
        let rows = pattern.atoms.split(|atom| atom.literal().is_none());
        let longest = rows.max_by_key(|row| row.len()).unwrap_or_default();
        pattern.needle = longest.iter().filter_map(Atom::literal).collect();
        Ok(pattern)
    }

    fn push(&mut self, character: Option<char>) {
        self.atoms.push(Atom { character, min: 1, max: 1 });
    }

    fn repeat(&mut self, sign: char) -> Result<(), String> {
        match self.atoms.last_mut() {
            Some(atom) if (atom.min, atom.max) == (1, 1) => {
                (atom.min, atom.max) = match sign {
                    '*' => (0, usize::MAX),
                    '+' => (1, usize::MAX),
                    _ => (0, 1),
                };
                Ok(())
            }
            _ => Err(format!("{sign} must follow a character")),
        }
    }

    /// Number of characters of the longest match at the start of `text`; `None` when it does not match.
    pub(crate) fn matched(&self, text: &str) -> Option<usize> {
        let rest = text.strip_prefix(&*self.start)?;
        let started = self.start.chars().count();
        if self.atoms.is_empty() {
            return (!self.to_end || rest.is_empty()).then_some(started);
        }
        if !rest.contains(&*self.needle) {
            return None;
        }
        let text: Vec<char> = rest.chars().collect();
        // All places where a match of the atoms so far can end; this form has no exponential case.
        let mut ends = vec![0];
        for atom in &self.atoms {
            ends = atom.advance(&text, &ends);
        }
        let end = ends.into_iter().filter(|end| !self.to_end || *end == text.len()).max()?;
        Some(started + end)
    }
}

impl Atom {
    fn advance(&self, text: &[char], starts: &[usize]) -> Vec<usize> {
        let mut reached = vec![false; text.len() + 1];
        for &start in starts {
            let run = text[start..].iter().take(self.max).take_while(|c| self.accepts(**c)).count();
            reached.iter_mut().take(start + run + 1).skip(start + self.min).for_each(|end| *end = true);
        }
        (0..=text.len()).filter(|end| reached[*end]).collect()
    }

    /// The one character that it stands for, once.
    fn literal(&self) -> Option<char> {
        self.character.filter(|_| (self.min, self.max) == (1, 1))
    }

    fn accepts(&self, c: char) -> bool {
        self.character.is_none_or(|wanted| wanted == c)
    }
}

fn escaped(c: Option<char>) -> Result<char, String> {
    match c {
        Some(c) if c.is_ascii_punctuation() => Ok(c),
        Some(c) => Err(format!("\\{c} is not supported")),
        None => Err(String::from("nothing follows \\")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(pattern: &str, text: &str) -> Option<usize> {
        Pattern::parse(pattern).unwrap().matched(text)
    }

    #[test]
    fn matches_at_the_start_and_counts_characters() {
        assert_eq!(matched(r"io\.kubernetes", "io.kubernetes.pod"), Some(13));
        assert_eq!(matched(r"io\.kubernetes", "ioxkubernetes"), None);
        assert_eq!(matched("io.kubernetes", "ioxkubernetes"), Some(13));
        assert_eq!(matched("kubernetes", "io.kubernetes"), None);
        assert_eq!(matched(r".*beta\.kubernetes\.io", "x/beta.kubernetes.io/arch"), Some(20));
        assert_eq!(matched("annotation.*", "annotations.x"), Some(13));
        assert_eq!(matched("^app$", "app"), Some(3));
        assert_eq!(matched("^app$", "apps"), None);
        assert_eq!(matched("ab*c+d?", "abbcc"), Some(5));
        assert_eq!(matched("a+b", "b"), None);
        assert_eq!(matched(".*", ""), Some(0));
        assert_eq!(matched("^app.*x$", "app/x"), Some(5));
        assert_eq!(matched("^app.*x$", "app/xy"), None);
        assert_eq!(matched("ab?c", "ac"), Some(2));
        assert_eq!(matched("é.c", "éxc"), Some(3));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for (text, reason) in [
            ("", "the pattern is empty"),
            ("a|b", "| is not supported"),
            ("[a]", "[ is not supported"),
            ("*a", "* must follow a character"),
            ("a**", "* must follow a character"),
            (r"a\d", r"\d is not supported"),
            ("a\\", "nothing follows \\"),
            ("a$b", "nothing can follow $"),
        ] {
            assert_eq!(Pattern::parse(text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn many_stars_are_no_trap() {
        assert_eq!(matched(&"a*".repeat(200), &"a".repeat(253)), Some(253));
    }
}
