//! Tables as they would be after the earlier steps of a dry run.

use std::collections::HashMap;

use super::{Query, Statement};
use crate::catalog::Table;

/// What earlier steps of a dry run would have written: a stand-in for each table that they would have changed.
#[derive(Debug, Clone, Default)]
pub struct Overlays {
    /// WITH queries in order of dependency; the n-th (from 1) is called `after_step_n`.
    queries: Vec<String>,
    /// Table → the number of the query that stands in for it.
    latest: HashMap<u32, usize>,
}

/// How the queries of [`Overlays`] are called, before their number.
const OVERLAY: &str = "after_step_";

impl Overlays {
    /// From now on `table` is read as `sql` says.
    pub fn push(&mut self, table: &Table, sql: String) {
        self.queries.push(sql);
        self.latest.insert(table.oid, self.queries.len());
    }

    /// Is this table replaced?
    pub fn replaces(&self, table: &Table) -> bool {
        self.latest.contains_key(&table.oid)
    }

    /// Does this text read one of them?
    pub(super) fn are_in(&self, text: &str) -> bool {
        !self.queries.is_empty() && text.contains(OVERLAY)
    }

    /// How FROM names the table.
    pub fn relation_sql(&self, table: &Table) -> String {
        match self.latest.get(&table.oid) {
            Some(number) => format!("{OVERLAY}{number}"),
            None => table.relation_sql(),
        }
    }

    /// Adds a query that others may name; returns its name.
    pub fn define(&mut self, sql: String) -> String {
        self.queries.push(sql);
        format!("{OVERLAY}{}", self.queries.len())
    }

    /// `statement` with the queries that it names in front of it, directly or through others. Not all there are: a run over a thousand
    /// tables would have Postgres read each of them a thousand times.
    pub fn before(&self, statement: Statement) -> Statement {
        match self.queries.is_empty() {
            true => statement,
            false => {
                let queries = self.queries_of(&statement.sql());
                statement.with_queries(queries)
            }
        }
    }

    /// The WITH queries that `sql` names, directly or through others.
    pub fn queries_of(&self, sql: &str) -> Vec<Query> {
        let mut needed = vec![false; self.queries.len()];
        let mut texts = vec![sql];
        while let Some(text) = texts.pop() {
            for (at, _) in text.match_indices(OVERLAY) {
                let digits = text[at + OVERLAY.len()..].chars().take_while(char::is_ascii_digit);
                let number: usize = digits.collect::<String>().parse().unwrap_or(0);
                if number > 0 && number <= needed.len() && !needed[number - 1] {
                    needed[number - 1] = true;
                    texts.push(&self.queries[number - 1]);
                }
            }
        }
        (1..)
            .zip(&self.queries)
            .filter(|(number, _)| needed[number - 1])
            .map(|(number, sql)| Query::new(format!("{OVERLAY}{number}"), sql))
            .collect()
    }
}
