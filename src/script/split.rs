//! A script as psql would read it: statements, its own `\` commands, and the data of COPY, each with its line.
//!
//! The rules are those of psql's scanner (psqlscan.l): semicolons inside quotes, comments, parentheses and the BEGIN ... END of an SQL
//! function body end nothing.

/// A part of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that Postgres would be sent, without the semicolon.
    Statement {
        /// Where it begins, from 1, behind comments.
        line: i32,
        /// In characters, from 1.
        column: i32,
        /// The statement.
        text: String,
        /// Lines of data behind it, of a COPY FROM stdin.
        data_lines: i64,
    },
    /// `\i file.sql`: to the end of the line.
    Meta {
        /// Where it stands, from 1.
        line: i32,
        /// As typed.
        text: String,
    },
}

/// Something that is not closed until the script ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unterminated {
    /// Where it was opened, from 1.
    pub line: i32,
    /// In characters, from 1.
    pub column: i32,
    /// `quoted string` ...
    pub what: &'static str,
}

/// Line and column of a position in a statement.
///
/// * `at`: in characters, from 1.
/// * `line`, `column`: where the statement begins.
pub fn place(text: &str, at: i32, line: i32, column: i32) -> (i32, i32) {
    let (mut line, mut column) = (line, column);
    for c in text.chars().take((at - 1).max(0) as usize) {
        match c {
            '\n' => {
                line += 1;
                column = 1;
            }
            _ => column += 1,
        }
    }
    (line, column)
}

struct Scanner<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
    line: i32,
    line_start: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        if c == '\n' {
            self.line += 1;
            self.line_start = self.at;
        }
        Some(c)
    }

    fn skip(&mut self, bytes: usize) {
        let end = self.at + bytes;
        while self.at < end && self.bump().is_some() {}
    }

    fn column(&self) -> i32 {
        self.text[self.line_start..self.at].chars().count() as i32 + 1
    }

    fn open(&self, what: &'static str) -> Unterminated {
        Unterminated {
            line: self.line,
            column: self.column(),
            what,
        }
    }

    /// To behind the closing quote; doubled ones are part of it, and with `escapes` so is what follows a backslash.
    fn quoted(&mut self, quote: char, escapes: bool, what: &'static str) -> Result<(), Unterminated> {
        let open = self.open(what);
        self.bump();
        loop {
            match self.bump() {
                None => return Err(open),
                Some('\\') if escapes => {
                    self.bump();
                }
                Some(c) if c == quote => match self.peek() {
                    Some(next) if next == quote => {
                        self.bump();
                    }
                    _ => return Ok(()),
                },
                Some(_) => {}
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), Unterminated> {
        let open = self.open("comment");
        let mut depth = 0;
        loop {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.skip(2);
                if depth == 0 {
                    return Ok(());
                }
            } else if self.bump().is_none() {
                return Err(open);
            }
        }
    }

    fn line_comment(&mut self) {
        let length = self.rest().find('\n').unwrap_or(self.rest().len());
        self.skip(length);
    }

    /// `$tag$`, if that is what stands here.
    fn dollar_tag(&self) -> Option<&'a str> {
        let rest = self.rest();
        let inner = rest.strip_prefix('$')?;
        let end = inner.find('$')?;
        let tag = &inner[..end];
        let first = tag.chars().next();
        let good = tag.chars().all(word) && !tag.contains('$') && !first.is_some_and(|c| c.is_ascii_digit());
        good.then(|| &rest[..end + 2])
    }

    /// Data of a COPY, to behind its `\.`; how many lines.
    fn copied(&mut self) -> i64 {
        // The rest of the line of the statement.
        self.line_comment();
        self.bump();
        let mut lines = 0;
        while !self.rest().is_empty() {
            let length = self.rest().find('\n').unwrap_or(self.rest().len());
            let last = self.rest()[..length].trim_end_matches('\r') == "\\.";
            self.skip(length);
            self.bump();
            if last {
                break;
            }
            lines += 1;
        }
        lines
    }
}

/// Names of functions that a statement calls, in lower case: a name, and behind it a parenthesis. Outside of quotes and comments.
pub fn called(statement: &str) -> std::collections::BTreeSet<String> {
    let mut scan = Scanner {
        text: statement,
        at: 0,
        line: 1,
        line_start: 0,
    };
    let mut names = std::collections::BTreeSet::new();
    let mut last = String::new();
    while let Some(c) = scan.peek() {
        let rest = scan.rest();
        let from = scan.at;
        // What is not closed ends the statement; the parser has seen it before.
        let closed = if c.is_whitespace() {
            scan.bump();
            continue;
        } else if rest.starts_with("--") {
            scan.line_comment();
            continue;
        } else if rest.starts_with("/*") {
            if scan.block_comment().is_err() {
                break;
            }
            continue;
        } else if c == '\'' {
            last.clear();
            scan.quoted('\'', false, "quoted string").is_ok()
        } else if c == '"' {
            let closed = scan.quoted('"', false, "quoted identifier").is_ok();
            last = statement[from..scan.at].trim_matches('"').to_lowercase();
            closed
        } else if let Some(tag) = scan.dollar_tag() {
            last.clear();
            scan.skip(tag.len());
            match scan.rest().find(tag) {
                Some(length) => {
                    scan.skip(length + tag.len());
                    true
                }
                None => false,
            }
        } else if word(c) {
            while scan.peek().is_some_and(|c| word(c) || c == '$') {
                scan.bump();
            }
            last = statement[from..scan.at].to_lowercase();
            if last == "e" && scan.peek() == Some('\'') {
                last.clear();
                scan.quoted('\'', true, "quoted string").is_ok()
            } else {
                true
            }
        } else {
            if c == '(' && !last.is_empty() {
                names.insert(last.clone());
            }
            last.clear();
            scan.bump();
            true
        };
        if !closed {
            break;
        }
    }
    names
}

/// Part of an identifier, behind its first letter.
fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

/// Splits a script.
///
/// Errors: what is not closed until the end.
pub fn split(script: &str) -> Result<Vec<Piece>, Unterminated> {
    let mut scan = Scanner {
        text: script.strip_prefix('\u{feff}').unwrap_or(script),
        at: 0,
        line: 1,
        line_start: 0,
    };
    let mut pieces = Vec::new();
    // The statement so far: where it begins, and its words as far as they matter.
    let mut start: Option<(usize, i32, i32)> = None;
    let mut words: Vec<String> = Vec::new();
    let (mut parentheses, mut blocks) = (0i32, 0i32);
    let mut end = |scan: &mut Scanner, start: &mut Option<(usize, i32, i32)>, words: &mut Vec<String>| {
        if let Some((from, line, column)) = start.take() {
            let text = scan.text[from..scan.at].trim_end().to_string();
            let copies = words.first().is_some_and(|w| w == "copy") && words.windows(2).any(|w| w == ["from", "stdin"]);
            let data_lines = match copies {
                true => scan.copied(),
                false => 0,
            };
            pieces.push(Piece::Statement {
                line,
                column,
                text,
                data_lines,
            });
        }
        words.clear();
    };
    let mut metas = Vec::new();
    while let Some(c) = scan.peek() {
        let rest = scan.rest();
        if c.is_whitespace() {
            scan.bump();
            continue;
        }
        if rest.starts_with("--") {
            scan.line_comment();
            continue;
        }
        if rest.starts_with("/*") {
            scan.block_comment()?;
            continue;
        }
        if c == '\\' {
            // A command of psql's ends what stands in front of it only with \g; others are no part of the statement.
            let (line, from) = (scan.line, scan.at);
            scan.line_comment();
            let text = scan.text[from..scan.at].trim_end().to_string();
            let sends = text.starts_with("\\g");
            if sends && start.is_some() {
                let resume = scan.at;
                scan.at = from;
                end(&mut scan, &mut start, &mut words);
                scan.at = resume;
                (parentheses, blocks) = (0, 0);
            }
            metas.push((line, text));
            continue;
        }
        if c == ';' && parentheses <= 0 && blocks == 0 {
            let at = scan.at;
            let copies = start.is_some();
            // The semicolon is no part of the text, but data begins behind it.
            end(&mut scan, &mut start, &mut words);
            if scan.at == at {
                scan.bump();
            }
            let _ = copies;
            (parentheses, blocks) = (0, 0);
            continue;
        }
        if start.is_none() {
            start = Some((scan.at, scan.line, scan.column()));
        }
        match c {
            '\'' => scan.quoted('\'', false, "quoted string")?,
            '"' => scan.quoted('"', false, "quoted identifier")?,
            '$' => match scan.dollar_tag() {
                Some(tag) => {
                    let open = scan.open("dollar-quoted string");
                    scan.skip(tag.len());
                    let length = scan.rest().find(tag).ok_or(open)?;
                    scan.skip(length + tag.len());
                }
                None => {
                    scan.bump();
                }
            },
            '(' => {
                parentheses += 1;
                scan.bump();
            }
            ')' => {
                parentheses -= 1;
                scan.bump();
            }
            c if word(c) => {
                let from = scan.at;
                while scan.peek().is_some_and(|c| word(c) || c == '$') {
                    scan.bump();
                }
                let text = scan.text[from..scan.at].to_lowercase();
                if text == "e" && scan.peek() == Some('\'') {
                    scan.quoted('\'', true, "quoted string")?;
                }
                // CREATE [OR REPLACE] FUNCTION ... BEGIN ATOMIC ...; END
                let creates = words.first().is_some_and(|w| w == "create")
                    && words.iter().take(4).any(|w| w == "function" || w == "procedure");
                if creates && parentheses == 0 {
                    match text.as_str() {
                        "begin" => blocks += 1,
                        "case" if blocks > 0 => blocks += 1,
                        "end" if blocks > 0 => blocks -= 1,
                        _ => {}
                    }
                }
                if words.len() < 4000 {
                    words.push(text);
                }
            }
            _ => {
                scan.bump();
            }
        }
    }
    end(&mut scan, &mut start, &mut words);
    pieces.extend(metas.into_iter().map(|(line, text)| Piece::Meta { line, text }));
    pieces.sort_by_key(|piece| match piece {
        Piece::Statement { line, column, .. } => (*line, *column),
        Piece::Meta { line, .. } => (*line, i32::MAX),
    });
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<String> {
        split(script)
            .unwrap()
            .into_iter()
            .map(|piece| match piece {
                Piece::Statement {
                    line,
                    column,
                    text,
                    data_lines,
                } => format!("{line}:{column} {text} [{data_lines}]"),
                Piece::Meta { line, text } => format!("{line} {text}"),
            })
            .collect()
    }

    #[test]
    fn semicolons_that_end_nothing() {
        assert_eq!(
            texts("SELECT 1;\n  SELECT ';';;"),
            ["1:1 SELECT 1 [0]", "2:3 SELECT ';' [0]"]
        );
        assert_eq!(
            texts("SELECT 'it''s;' || E'\\';' || \";\"\"\""),
            ["1:1 SELECT 'it''s;' || E'\\';' || \";\"\"\" [0]"]
        );
        assert_eq!(
            texts("-- a;\n/* b; /* c; */ */ DO $x$ BEGIN a; $$ b; END $x$; SELECT 2"),
            ["2:19 DO $x$ BEGIN a; $$ b; END $x$ [0]", "2:50 SELECT 2 [0]"]
        );
        assert_eq!(
            texts("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT a$b;"),
            [
                "1:1 CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2) [0]",
                "1:58 SELECT a$b [0]"
            ]
        );
        assert_eq!(
            texts("CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; BEGIN; END;").len(),
            3
        );
        assert_eq!(texts("\u{feff}SELECT 1"), ["1:1 SELECT 1 [0]"]);
    }

    #[test]
    fn commands_of_psql_and_data() {
        assert_eq!(
            texts("\\set x 1\nCOPY t (a) FROM stdin;\n1;'\n2\n\\.\nSELECT 1 \\gx\nSELECT 2;"),
            [
                "1 \\set x 1",
                "2:1 COPY t (a) FROM stdin [2]",
                "6:1 SELECT 1 [0]",
                "6 \\gx",
                "7:1 SELECT 2 [0]"
            ]
        );
        assert_eq!(texts("-- nothing\n /* at all */ ;;"), Vec::<String>::new());
    }

    #[test]
    fn functions_that_a_statement_calls() {
        let text = "SELECT \"Dblink\" /* ( */ ('nextval(1)', E'it\\'s'), a.HTTP_get -- it's (\n (1) || setval('s', $x$ f(1) $x$), x FROM t WHERE (y)";
        let names: Vec<String> = called(text).into_iter().collect();
        assert_eq!(names, ["dblink", "http_get", "setval", "where"]);
    }

    #[test]
    fn what_is_not_closed_is_said_with_its_place() {
        for (script, line, column, what) in [
            ("SELECT 1;\n  'abc;", 2, 3, "quoted string"),
            ("/* a /* b */", 1, 1, "comment"),
            ("DO\n$a$ x $b$", 2, 1, "dollar-quoted string"),
            ("SELECT \"é", 1, 8, "quoted identifier"),
        ] {
            assert_eq!(split(script), Err(Unterminated { line, column, what }), "{script}");
        }
        assert_eq!(place("SELECT\n  x y", 11, 3, 5), (4, 4));
    }
}
