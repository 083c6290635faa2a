//! Texts of the catalog, made comparable.

/// White space outside of quotes as one blank; parentheses around the whole taken off.
pub fn normalized(text: &str) -> String {
    let mut result = String::new();
    let mut quote: Option<char> = None;
    for c in text.chars() {
        match quote {
            Some(q) => {
                if c == q {
                    quote = None;
                }
                result.push(c);
            }
            None if c.is_whitespace() => {
                if !result.ends_with([' ', '(']) {
                    result.push(' ');
                }
            }
            None => {
                if c == ')' && result.ends_with(' ') {
                    result.pop();
                }
                if c == '\'' || c == '"' {
                    quote = Some(c);
                }
                result.push(c);
            }
        }
    }
    let mut text = result.trim().trim_end_matches(';').trim_end();
    while let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        // `(a) AND (b)` has no parentheses around the whole.
        let (mut depth, mut quoted, mut whole) = (0i32, None, true);
        for c in inner.chars() {
            match (quoted, c) {
                (Some(q), c) if c == q => quoted = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quoted = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => depth -= 1,
                _ => {}
            }
            whole &= depth >= 0;
        }
        if !whole {
            break;
        }
        text = inner.trim();
    }
    text.to_string()
}

/// A parse tree as text, without where in the statement each part stood.
pub fn without_places(tree: Option<&str>) -> Option<String> {
    let tree = tree?;
    let mut words: Vec<&str> = Vec::new();
    let mut skip = false;
    for word in tree.split_whitespace() {
        if std::mem::take(&mut skip) {
            // `-1}` closes what it is in.
            let closing = word.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
            if !closing.is_empty() {
                words.push(closing);
            }
            continue;
        }
        match word {
            ":location" | ":stmt_location" | ":stmt_len" => skip = true,
            word => words.push(word),
        }
    }
    Some(words.join(" "))
}

/// Without white space and parentheses outside of quotes.
pub fn bare(text: &str) -> String {
    let mut quote: Option<char> = None;
    let mut result = String::new();
    for c in text.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_whitespace() || c == '(' || c == ')' => continue,
            _ => {}
        }
        result.push(c);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_without_white_space_and_outer_parentheses() {
        assert_eq!(normalized(" ((a   >\n 1)) "), "a > 1");
        assert_eq!(normalized("((a) AND (b))"), "(a) AND (b)");
        assert_eq!(normalized("('x  )(' = a)"), "'x  )(' = a");
        assert_eq!(
            without_places(Some("{OPEXPR :opno 96 :location 12} {VAR :varno 1 :location -1})")).as_deref(),
            Some("{OPEXPR :opno 96 } {VAR :varno 1 })")
        );
    }
}
