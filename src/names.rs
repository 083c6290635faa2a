//! What names say: words, singular forms, and which table a column is named after.

/// The words of a name, lower-case: `buyerOrganizationId` and `buyer_organization_id` both give buyer, organization, id.
pub fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous: Option<char> = None;
    let letters: Vec<char> = name.chars().collect();
    for (i, &c) in letters.iter().enumerate() {
        if !c.is_alphanumeric() {
            previous = None;
            continue;
        }
        let next_is_lower = letters.get(i + 1).is_some_and(|n| n.is_lowercase());
        let starts = match previous {
            None => true,
            Some(p) => c.is_uppercase() && (p.is_lowercase() || p.is_numeric() || next_is_lower),
        };
        if starts {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
        previous = Some(c);
    }
    words
}

/// English singular, well enough to compare table names: companies → company, addresses → address, users → user.
pub fn singular(word: &str) -> String {
    if let Some(stem) = word.strip_suffix("ies").filter(|s| s.len() > 1) {
        return format!("{stem}y");
    }
    for ending in ["sses", "xes", "ches", "shes", "zes"] {
        if word.ends_with(ending) {
            return word[..word.len() - 2].to_string();
        }
    }
    match word.strip_suffix('s') {
        Some(stem) if !stem.ends_with('s') && !stem.ends_with('u') && stem.len() > 1 => stem.to_string(),
        _ => word.to_string(),
    }
}

/// The words by which a table is known: its name's, the last one in the singular. `org_units` gives org, unit.
pub fn stem(table: &str) -> Vec<String> {
    let mut words = words(table);
    if let Some(last) = words.last_mut() {
        *last = singular(last);
    }
    words
}

/// As [`stem`], for a column that may refer to a table: without a final id, uuid, key, fk or ref.
pub fn column_stem(column: &str) -> Vec<String> {
    let mut words = words(column);
    if words.len() > 1
        && matches!(
            words.last().map(String::as_str),
            Some("id" | "uuid" | "key" | "fk" | "ref")
        )
    {
        words.pop();
    }
    if let Some(last) = words.last_mut() {
        *last = singular(last);
    }
    words
}

/// If `column` is named after `table` (`buyerContactId` after `Contact`, `org_units_id` after `org_unit`), the words
/// before it: `["buyer"]`, or none for `contactId`.
pub fn prefix_before(column: &str, table: &str) -> Option<Vec<String>> {
    let (column, table) = (column_stem(column), stem(table));
    let at = column.len().checked_sub(table.len())?;
    (!table.is_empty() && column[at..] == table[..]).then(|| column[..at].to_vec())
}

/// NAMEDATALEN - 1, in bytes.
const LONGEST_NAME: usize = 63;

/// The name of a constraint or index: table, columns, what it is; cut to the length of a name before the ending, and numbered
/// where `taken` has it already.
///
/// ```
/// # use pg_mend::names::generated;
/// assert_eq!(generated("jobs", &["customer_id"], "fkey", |_| false), "jobs_customer_id_fkey");
/// assert_eq!(generated("jobs", &["customer_id"], "fkey", |n| n == "jobs_customer_id_fkey"), "jobs_customer_id_fkey1");
/// ```
pub fn generated(table: &str, columns: &[&str], ending: &str, taken: impl Fn(&str) -> bool) -> String {
    let plain = format!("_{ending}");
    let mut ending = plain.clone();
    let mut number = 0;
    loop {
        let mut name = format!("{table}_{}", columns.join("_"));
        while name.len() > LONGEST_NAME - ending.len() {
            name.pop();
        }
        name.push_str(&ending);
        if !taken(&name) {
            return name;
        }
        number += 1;
        ending = format!("{plain}{number}");
    }
}

/// The names closest to `wanted`, best first, at most three, for "did you mean".
///
/// Case and separators count little (`clientpartyid` is near `clientPartyId`); anything further away than a third of
/// the name's length is not offered.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let plain = |s: &str| s.to_lowercase().replace(['_', '-', ' ', '"'], "");
    let target = plain(wanted);
    let mut scored: Vec<(usize, &str)> = names
        .into_iter()
        .map(|name| {
            // One Party, many parties.
            let same = stem(name) == stem(wanted);
            (
                if same {
                    0
                } else {
                    strsim::damerau_levenshtein(&plain(name), &target)
                },
                name,
            )
        })
        .filter(|(distance, _)| *distance <= (target.chars().count() / 3).max(1))
        .collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(3).map(|(_, name)| name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_into_words_in_every_convention() {
        assert_eq!(words("buyerOrganizationId"), ["buyer", "organization", "id"]);
        assert_eq!(words("buyer_organization_id"), ["buyer", "organization", "id"]);
        assert_eq!(words("HTTPServerID"), ["http", "server", "id"]);
        assert_eq!(words("Odd name-2"), ["odd", "name", "2"]);
        assert!(words("").is_empty());
    }

    #[test]
    fn singular_forms() {
        for (plural, one) in [
            ("companies", "company"),
            ("addresses", "address"),
            ("users", "user"),
            ("boxes", "box"),
            ("status", "status"),
        ] {
            assert_eq!(singular(plural), one);
        }
    }

    #[test]
    fn a_column_is_named_after_its_table() {
        assert_eq!(prefix_before("buyerContactId", "Contact").unwrap(), ["buyer"]);
        assert_eq!(prefix_before("contactId", "Contact").unwrap(), Vec::<String>::new());
        assert_eq!(prefix_before("contact_id", "contacts").unwrap(), Vec::<String>::new());
        assert_eq!(
            prefix_before("stud_owner_contact_id", "contacts").unwrap(),
            ["stud", "owner"]
        );
        assert_eq!(
            prefix_before("offspringGroupBuyerId", "OffspringGroupBuyer").unwrap(),
            Vec::<String>::new()
        );
        assert_eq!(prefix_before("createdBy", "users"), None);
        assert_eq!(prefix_before("id", "Contact"), None);
    }

    #[test]
    fn nearest_forgives_case_and_typos_and_offers_nothing_far_away() {
        let names = ["WaitlistEntry", "Waitlist", "Animal", "AnimalOwner"];
        assert_eq!(nearest("waitlist_entry", names), ["WaitlistEntry"]);
        assert_eq!(nearest("AnimalOwnr", names), ["AnimalOwner"]);
        assert!(nearest("Invoice", names).is_empty());
    }
}
