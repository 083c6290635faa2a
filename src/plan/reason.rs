//! The class of a row, and rows per class: one vocabulary for the statements, the results and the record of every call.

use std::collections::BTreeMap;
use std::fmt;

use crate::identifier::Literal;

/// Why a row is written, or stays as it is. Each row is in exactly one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Backfill: the column has a value.
    AlreadySet,
    /// Backfill: a source gives a value, and nothing refuses it.
    Filled,
    /// Every source column is NULL.
    NoSource,
    /// A source points at no row.
    SourceMissing,
    /// The parent's own value is NULL.
    SourceNull,
    /// Sources give different values.
    Conflict,
    /// A source matches several parents with different values.
    Ambiguous,
    /// The value belongs to another tenant.
    CrossTenant,
    /// The table refuses it; by the constraint, type, index or trigger of this name, where that is known.
    ConstraintFailed(Option<String>),
    /// The caller's condition or tenant leaves the row out.
    Excluded,
    /// Parents: one can be created for the row.
    Create,
    /// Repair: the row violates its reference no more.
    Repaired,
    /// Repair: some columns of a MATCH FULL key are NULL.
    PartlyNull,
    /// Repair: rows of several tenants want the same new parent.
    TwoTenants,
    /// Repair: the tenant of a new parent cannot be determined.
    TenantUnknown,
    /// Undo: the row is as it was before the run.
    Undone,
    /// Undo: an earlier undo had the row.
    AlreadyRestored,
    /// Undo: somebody has changed the row since.
    ChangedSince,
    /// Undo: the row is not there any more.
    RowIsGone,
    /// Undo: a row with its key is there.
    RowIsThere,
    /// Undo: other rows refer to it.
    Referenced,
    /// Reset: the row or value is back.
    Restored,
    /// Reset: its table is not there.
    TableMissing,
    /// Reset: its column is not there.
    ColumnMissing,
    /// Reset: the table has other columns now.
    ColumnsDiffer,
    /// Reset: the table has another primary key now.
    KeyDiffers,
    /// Reset: the column is GENERATED ALWAYS AS IDENTITY, which no UPDATE may set.
    IdentityAlways,
}

impl Reason {
    /// Refused by what is called `name`.
    pub fn refused_by(name: &str) -> Reason {
        Reason::ConstraintFailed(Some(name.to_string()))
    }

    /// Without the constraint's name: as the result shows it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Reason::AlreadySet => "already_set",
            Reason::Filled => "filled",
            Reason::NoSource => "no_source",
            Reason::SourceMissing => "source_missing",
            Reason::SourceNull => "source_null",
            Reason::Conflict => "conflict",
            Reason::Ambiguous => "ambiguous",
            Reason::CrossTenant => "cross_tenant",
            Reason::ConstraintFailed(_) => "constraint_failed",
            Reason::Excluded => "excluded",
            Reason::Create => "create",
            Reason::Repaired => "repaired",
            Reason::PartlyNull => "partly_null",
            Reason::TwoTenants => "two_tenants",
            Reason::TenantUnknown => "tenant_unknown",
            Reason::Undone => "undone",
            Reason::AlreadyRestored => "already_restored",
            Reason::ChangedSince => "changed_since",
            Reason::RowIsGone => "row_is_gone",
            Reason::RowIsThere => "row_is_there",
            Reason::Referenced => "referenced",
            Reason::Restored => "restored",
            Reason::TableMissing => "table_missing",
            Reason::ColumnMissing => "column_missing",
            Reason::ColumnsDiffer => "columns_differ",
            Reason::KeyDiffers => "key_differs",
            Reason::IdentityAlways => "identity_always",
        }
    }

    /// All of them, a constraint without a name.
    const ALL: [Reason; 27] = [
        Reason::AlreadySet,
        Reason::Filled,
        Reason::NoSource,
        Reason::SourceMissing,
        Reason::SourceNull,
        Reason::Conflict,
        Reason::Ambiguous,
        Reason::CrossTenant,
        Reason::ConstraintFailed(None),
        Reason::Excluded,
        Reason::Create,
        Reason::Repaired,
        Reason::PartlyNull,
        Reason::TwoTenants,
        Reason::TenantUnknown,
        Reason::Undone,
        Reason::AlreadyRestored,
        Reason::ChangedSince,
        Reason::RowIsGone,
        Reason::RowIsThere,
        Reason::Referenced,
        Reason::Restored,
        Reason::TableMissing,
        Reason::ColumnMissing,
        Reason::ColumnsDiffer,
        Reason::KeyDiffers,
        Reason::IdentityAlways,
    ];

    /// As a statement returned it.
    pub fn parse(text: &str) -> Option<Reason> {
        let (reason, name) = match text.split_once(": ") {
            Some((reason, name)) => (reason, Some(name)),
            None => (text, None),
        };
        let found = Reason::ALL.into_iter().find(|known| known.as_str() == reason)?;
        match (found, name) {
            (Reason::ConstraintFailed(_), name) => Some(Reason::ConstraintFailed(name.map(str::to_string))),
            (found, None) => Some(found),
            (_, Some(_)) => None,
        }
    }

    /// As a literal of SQL.
    ///
    /// ```text
    /// 'constraint_failed: Entry_partyId_fkey'
    /// ```
    pub fn sql(&self) -> String {
        Literal::new(&self.to_string()).to_string()
    }
}

impl fmt::Display for Reason {
    /// As statements name it: a constraint with its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ConstraintFailed(Some(name)) => write!(f, "constraint_failed: {name}"),
            reason => f.write_str(reason.as_str()),
        }
    }
}

/// A CASE that gives the first reason whose condition holds.
///
/// * `otherwise`: where none does.
///
/// ```text
/// CASE WHEN t.a IS NULL THEN 'no_source' ELSE 'filled' END
/// ```
pub fn case(cases: &[(String, Reason)], otherwise: &Reason) -> String {
    let mut sql = String::from("CASE");
    for (condition, reason) in cases {
        sql.push_str(&format!("\n    WHEN {condition} THEN {}", reason.sql()));
    }
    match cases.is_empty() {
        true => otherwise.sql(),
        false => format!("{sql}\n    ELSE {}\n  END", otherwise.sql()),
    }
}

/// Rows per reason, none of them 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Reason, i64>);

impl Tally {
    /// Further rows.
    pub fn add(&mut self, reason: Reason, rows: i64) {
        if rows != 0 {
            *self.0.entry(reason).or_default() += rows;
        }
    }

    /// All of another one.
    pub fn extend(&mut self, other: &Tally) {
        for (reason, rows) in &other.0 {
            self.add(reason.clone(), *rows);
        }
    }

    /// Rows of one reason; of [`Reason::ConstraintFailed`] by whatever name.
    pub fn rows(&self, reason: &Reason) -> i64 {
        let same = |known: &Reason| known.as_str() == reason.as_str();
        self.0
            .iter()
            .filter(|(known, _)| same(known))
            .map(|(_, rows)| rows)
            .sum()
    }

    /// Takes out the rows of one reason.
    pub fn take(&mut self, reason: &Reason) -> i64 {
        self.0.remove(reason).unwrap_or(0)
    }

    /// All rows.
    pub fn total(&self) -> i64 {
        self.0.values().sum()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The reasons and their rows.
    pub fn iter(&self) -> impl Iterator<Item = (&Reason, i64)> {
        self.0.iter().map(|(reason, rows)| (reason, *rows))
    }

    /// Rows by the words of the result: what different constraints refused is one number.
    pub fn by_word(&self) -> BTreeMap<&'static str, i64> {
        let mut words = BTreeMap::new();
        for (reason, rows) in &self.0 {
            *words.entry(reason.as_str()).or_default() += rows;
        }
        words
    }

    /// As JSON: `{"no_source": 2}`.
    pub fn to_json(&self) -> serde_json::Value {
        let words = self.by_word().into_iter();
        serde_json::Value::Object(words.map(|(word, rows)| (word.to_string(), rows.into())).collect())
    }

    /// Which constraints refused how many rows, for a note: `refused: 2 by a_check, 1 by b_key`.
    pub fn refused(&self) -> Option<String> {
        let named = self.0.iter().filter_map(|(reason, rows)| match reason {
            Reason::ConstraintFailed(Some(name)) => Some(format!("{rows} by {name}")),
            _ => None,
        });
        let named: Vec<String> = named.collect();
        (!named.is_empty()).then(|| format!("refused: {}", named.join(", ")))
    }
}

impl FromIterator<(Reason, i64)> for Tally {
    fn from_iter<T: IntoIterator<Item = (Reason, i64)>>(rows: T) -> Self {
        let mut tally = Tally::default();
        for (reason, rows) in rows {
            tally.add(reason, rows);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::{Reason, Tally, case};

    #[test]
    fn every_reason_is_read_back_as_it_is_written() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(&reason.to_string()), Some(reason));
        }
        let named = Reason::refused_by("it's: odd");
        assert_eq!(named.sql(), "'constraint_failed: it''s: odd'");
        assert_eq!(Reason::parse("constraint_failed: it's: odd"), Some(named));
        assert_eq!((Reason::parse("filled: x"), Reason::parse("nonsense")), (None, None));
    }

    #[test]
    fn constraints_are_one_number_in_the_result_and_by_name_in_the_note() {
        let rows = [
            (Reason::refused_by("a"), 2),
            (Reason::refused_by("b"), 1),
            (Reason::Excluded, 0),
            (Reason::NoSource, 4),
        ];
        let tally: Tally = rows.into_iter().collect();
        assert_eq!(tally.to_json().to_string(), r#"{"constraint_failed":3,"no_source":4}"#);
        assert_eq!(tally.refused().as_deref(), Some("refused: 2 by a, 1 by b"));
        assert_eq!((tally.total(), tally.rows(&Reason::ConstraintFailed(None))), (7, 3));
    }

    #[test]
    fn a_case_without_cases_is_its_end() {
        assert_eq!(case(&[], &Reason::Repaired), "'repaired'");
        let cases = [("a".to_string(), Reason::NoSource)];
        assert_eq!(
            case(&cases, &Reason::Filled),
            "CASE\n    WHEN a THEN 'no_source'\n    ELSE 'filled'\n  END"
        );
    }
}
