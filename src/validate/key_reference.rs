//! A reference: columns of a table that mean the key of another one.

use crate::catalog::{State, Table};
use crate::rule::typed;

/// Columns of one table that should hold the key of a row of another.
#[derive(Debug, Clone)]
pub struct KeyReference<'a> {
    /// The referencing table.
    pub table: &'a Table,
    /// Its columns.
    pub columns: Vec<i16>,
    /// The referenced table.
    pub parent: &'a Table,
    /// Its columns, in the same order.
    pub key: Vec<i16>,
    /// The name of the foreign key; `None`: there is none.
    pub constraint: Option<&'a str>,
    /// How far Postgres vouches for it.
    pub state: State,
    /// A partly NULL key is a violation (MATCH FULL).
    pub match_full: bool,
    /// Only rows with this text in this column mean this parent (`resource_type = 'invoice'`).
    pub discriminator: Option<(i16, String)>,
    /// The user said that it may lead to another tenant.
    pub may_cross_tenants: bool,
    /// One row of the parent at most has the key.
    pub unique: bool,
    /// Where the first column is the row's tenant key and the first of the key that of the parent: which tenant's row is meant follows from
    /// the row, so that a row of another tenant is found by the other columns alone.
    pub within_tenant: bool,
    /// The declaration that it rests on, with the role that made it.
    pub declaration: Option<String>,
}

impl<'a> KeyReference<'a> {
    /// The columns as a person types them: `contactId`, `(tenant_id, ref)`, `(resource_type = 'invoice', resource_id)`.
    pub fn columns_shown(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        if let Some((column, value)) = &self.discriminator {
            let name = self.table.names_of(&[*column]).join("");
            parts.push(format!("{} = '{}'", typed(&name), value.replace('\'', "''")));
        }
        if parts.is_empty() && self.columns.len() == 1 {
            return self.table.names_of(&self.columns).join("");
        }
        parts.extend(self.table.names_of(&self.columns).iter().map(|name| typed(name)));
        format!("({})", parts.join(", "))
    }

    /// As [`Self::columns_shown`], the parent's.
    pub fn key_shown(&self) -> String {
        shown(&self.parent.names_of(&self.key))
    }

    /// The columns alone, as a call takes them: `(resource_type, resource_id)`.
    pub fn columns_typed(&self) -> String {
        let mut columns: Vec<i16> = self.discriminator.iter().map(|(column, _)| *column).collect();
        columns.extend(&self.columns);
        shown(&self.table.names_of(&columns))
    }
}

/// A reference that is not checked.
#[derive(Debug, Clone)]
pub struct Unchecked {
    /// As displayed or declared.
    pub table: String,
    /// As typed or declared.
    pub columns: String,
    /// As displayed or declared.
    pub parent: Option<String>,
    /// The foreign key.
    pub constraint: Option<String>,
    /// `None`: it is none.
    pub state: Option<State>,
    /// In words, with what to do.
    pub why: String,
    /// As [`KeyReference::declaration`].
    pub declaration: Option<String>,
}

/// A reference, or why it is not checked.
#[derive(Debug, Clone)]
pub enum Found<'a> {
    /// To be checked.
    Reference(KeyReference<'a>),
    /// Something that a declaration names is gone or does not fit any more; it says that there is none; or comparing would run the code
    /// of somebody else.
    Unchecked(Unchecked),
}

/// One name as it is, several in parentheses.
pub fn shown(names: &[&str]) -> String {
    match names {
        [one] => one.to_string(),
        several => {
            let several: Vec<String> = several.iter().map(|name| typed(name)).collect();
            format!("({})", several.join(", "))
        }
    }
}
