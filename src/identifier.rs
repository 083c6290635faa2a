//! The one way by which a name gets into SQL text: always quoted where Postgres would need it, never by hand.

use std::fmt;

/// One identifier; `Display` writes it as SQL, quoted unless it is a plain lower-case word.
///
/// ```
/// # use pg_mend::identifier::Identifier;
/// assert_eq!(Identifier::new("party_id").to_string(), "party_id");
/// assert_eq!(Identifier::new("partyId").to_string(), "\"partyId\"");
/// assert_eq!(Identifier::new("a\"b").to_string(), "\"a\"\"b\"");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifier<'a>(&'a str);

impl<'a> Identifier<'a> {
    /// Takes the bare name, exactly as the catalog has it.
    pub fn new(name: &'a str) -> Self {
        Identifier(name)
    }

    /// Lower-case words stay bare, unless they could be a keyword of some Postgres version: the list is not worth
    /// keeping, so only names with an underscore or digit, or well-known harmless ones, are trusted.
    fn is_plain(&self) -> bool {
        let mut chars = self.0.chars();
        let starts = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
        let rest = self
            .0
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        starts && rest && (self.0.ends_with("_id") || matches!(self.0, "id" | "public" | "t" | "ctid" | "tableoid"))
    }
}

impl fmt::Display for Identifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain() {
            f.write_str(self.0)
        } else {
            write!(f, "\"{}\"", self.0.replace('"', "\"\""))
        }
    }
}

/// A value that must stand in SQL text that a person will run by hand (never used for what we execute ourselves: there,
/// values are parameters).
///
/// ```
/// # use pg_mend::identifier::Literal;
/// assert_eq!(Literal::new("O'Neil").to_string(), "'O''Neil'");
/// assert_eq!(Literal::new("a\\b").to_string(), "E'a\\\\b'");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    /// Takes the bare text.
    pub fn new(text: &'a str) -> Self {
        Literal(text)
    }
}

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = self.0.replace('\'', "''");
        // With a backslash the meaning of a plain literal depends on standard_conforming_strings; E'' does not.
        if quoted.contains('\\') {
            write!(f, "E'{}'", quoted.replace('\\', "\\\\"))
        } else {
            write!(f, "'{quoted}'")
        }
    }
}

/// One part of a name as a person typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePart {
    /// The letters, without the quotes.
    pub text: String,
    /// It stood in quotes, so only the exact letters count.
    pub quoted: bool,
}

impl NamePart {
    /// The letters to try, in order: as typed, then as Postgres folds them.
    pub fn spellings(&self) -> Vec<String> {
        let folded = self.text.to_ascii_lowercase();
        if self.quoted || folded == self.text {
            vec![self.text.clone()]
        } else {
            vec![self.text.clone(), folded]
        }
    }
}

/// Splits `"Odd Schema"."T.x"` or `public.Contact` into parts. `None` for an unbalanced quote, an empty part, or letters
/// directly behind a closing quote.
pub fn split_name(text: &str) -> Option<Vec<NamePart>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        rest = rest.trim_start();
        let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let mut letters = String::new();
            let mut end = None;
            let mut chars = quoted.char_indices().peekable();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                        letters.push('"');
                        chars.next();
                    }
                    '"' => {
                        end = Some(at + 1);
                        break;
                    }
                    c => letters.push(c),
                }
            }
            (
                NamePart {
                    text: letters,
                    quoted: true,
                },
                quoted[end?..].trim_start(),
            )
        } else {
            let end = rest.find(['.', '"']).unwrap_or(rest.len());
            (
                NamePart {
                    text: rest[..end].trim().to_string(),
                    quoted: false,
                },
                &rest[end..],
            )
        };
        if part.text.is_empty() {
            return None;
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Option<Vec<String>> {
        split_name(text).map(|parts| parts.into_iter().map(|p| p.text).collect())
    }

    #[test]
    fn names_split_at_dots_outside_quotes() {
        assert_eq!(names("public.Contact").unwrap(), ["public", "Contact"]);
        assert_eq!(names("\"Odd Schema\".\"T.x\"").unwrap(), ["Odd Schema", "T.x"]);
        assert_eq!(names("\"say \"\"hi\"\"\"").unwrap(), ["say \"hi\""]);
        assert_eq!(names("legacy contact").unwrap(), ["legacy contact"]);
        for bad in ["", "\"open", "a..b", "a.", "\"a\"b", ".a"] {
            assert_eq!(names(bad), None, "{bad}");
        }
    }

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        let nasty = "x\"; DROP TABLE y; --";
        assert_eq!(Identifier::new(nasty).to_string(), "\"x\"\"; DROP TABLE y; --\"");
        assert_eq!(
            Literal::new("'; DROP TABLE y; --").to_string(),
            "'''; DROP TABLE y; --'"
        );
        for keyword in ["user", "order", "select", "value"] {
            assert!(Identifier::new(keyword).to_string().starts_with('"'));
        }
    }
}
