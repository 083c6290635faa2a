//! Data types: what a column holds.

use serde::{Deserialize, Serialize};

use crate::identifier::Identifier;

/// An object id of Postgres.
pub type Oid = u32;

/// A type of some column.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Type {
    /// pg_type.oid
    pub oid: Oid,
    /// The bare schema name.
    pub schema: String,
    /// The bare name (`int4`, not `integer`).
    pub name: String,
    /// format_type: the name that people know (`integer`).
    pub display: String,
    /// pg_type.typtype: b base, d domain, e enum, c composite, r range, m multirange, p pseudo.
    pub kind: char,
    /// pg_type.typcategory: S string, N numeric, A array ...
    pub category: char,
    /// For a domain, the type below it (maybe a domain again).
    pub base: Option<Oid>,
    /// For a domain, the modifier that it puts on its base.
    pub base_modifier: i32,
    /// The operator of its default btree or hash operator class, where one exists.
    pub equality: Option<Operator>,
    /// For an enum, its labels in order.
    pub labels: Vec<String>,
    /// As [`super::Table::owner_is_trusted`].
    #[serde(skip_serializing, default)]
    pub owner_is_trusted: bool,
}

/// An operator by schema and symbol.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Operator {
    /// The bare schema name.
    pub schema: String,
    /// `=` as a rule.
    pub name: String,
}

impl Type {
    /// As displayed, with the modifier of a column.
    ///
    /// ```text
    /// varchar, 12          character varying(8)
    /// numeric, 196612      numeric(3,0)
    /// timestamptz, 3       timestamp(3) with time zone
    /// ```
    pub fn with_modifier(&self, modifier: i32) -> String {
        if modifier < 0 || !self.is_built_in() {
            return self.display.clone();
        }
        let modifier = match self.name.as_str() {
            // pg_type.h: the modifier of varchar(n) and char(n) is n + 4.
            "varchar" | "bpchar" => (modifier - 4).to_string(),
            "numeric" => {
                let (precision, scale) = numeric_modifier(modifier);
                format!("{precision},{scale}")
            }
            _ => modifier.to_string(),
        };
        match self.display.split_once(' ').filter(|_| self.category == 'D') {
            Some((first, rest)) => format!("{first}({modifier}) {rest}"),
            None => format!("{}({modifier})", self.display),
        }
    }

    /// Postgres's own, or of a role whose code may run with the caller's rights.
    pub fn is_trusted(&self) -> bool {
        self.is_built_in() || self.owner_is_trusted
    }

    /// json or jsonb.
    pub fn is_json(&self) -> bool {
        self.is_built_in() && matches!(self.name.as_str(), "json" | "jsonb")
    }

    /// Is it Postgres's own, so that only superusers can define casts of it? (An array is its element's.)
    pub fn is_built_in(&self) -> bool {
        self.schema == "pg_catalog"
    }

    /// The name as it enters SQL text, for a cast.
    pub fn sql(&self) -> String {
        if self.schema == "pg_catalog" && self.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
            format!("pg_catalog.{}", self.name)
        } else {
            format!("{}.{}", Identifier::new(&self.schema), Identifier::new(&self.name))
        }
    }

    /// A built-in text type: text, varchar, bpchar.
    pub fn is_string(&self) -> bool {
        self.schema == "pg_catalog" && matches!(self.name.as_str(), "text" | "varchar" | "bpchar")
    }

    /// The largest value of a built-in integer type.
    pub fn integer_range(&self) -> Option<(i64, i64)> {
        match (self.schema.as_str(), self.name.as_str()) {
            ("pg_catalog", "int2") => Some((i16::MIN.into(), i16::MAX.into())),
            ("pg_catalog", "int4") => Some((i32::MIN.into(), i32::MAX.into())),
            ("pg_catalog", "int8") => Some((i64::MIN, i64::MAX)),
            _ => None,
        }
    }
}

/// Small catalogs made by hand, for unit tests of the rooms that need no server.
/// Precision and scale of a numeric with a modifier: numerictypmodin (numeric.c), precision above, scale (signed, since 15) below.
pub fn numeric_modifier(modifier: i32) -> (i32, i32) {
    let scale = match cfg!(any(feature = "pg13", feature = "pg14")) {
        true => (modifier - 4) & 0xffff,
        false => (((modifier - 4) & 0x7ff) ^ 1024) - 1024,
    };
    ((modifier - 4) >> 16 & 0xffff, scale)
}

#[cfg(test)]
mod tests {
    use super::numeric_modifier;

    #[test]
    fn precision_and_scale_of_a_modifier() {
        // SELECT atttypmod: numeric(3,0), numeric(12,2)
        assert_eq!(numeric_modifier(196_612), (3, 0));
        assert_eq!(numeric_modifier(786_438), (12, 2));
    }
}
