//! The classification: one query, one row per target row, with its outcome and the value that it would get.
//!
//! ```text
//! FROM target t
//! LEFT JOIN the parents of each source          source_1, source_2_1, source_2_2 ...
//! CROSS JOIN LATERAL (the first value given)    found
//! LEFT JOIN the row that the value means        referenced
//! LEFT JOIN the parents that know the tenant    owner_1 ..., referenced_owner_1 ...
//! LEFT JOIN parents of other foreign keys       foreign_key_1 ...
//! ```
//!
//! Every join finds at most one row (keys are unique; where a source's are not, its parents are aggregated per key), so
//! the number of rows stays that of the target. The outcome is one CASE, in the order of the design; conditions that
//! could raise (CHECK expressions) stand behind everything that must hold before they would be evaluated for real.

use super::expression::{any, differs, equal, equals_text};
use super::reason::{self, Reason};
use super::sources::{Joined, SourceSql, hop_alias};
use super::{Blueprint, Moment, RowSet, written_as};
use crate::catalog::{Table, UniqueIndex};
use crate::identifier::{Identifier, Literal};
use crate::infer::tenancy::guard::{Guard, TenantPath};
use crate::rule::{Expression, OnConflict, Operand, Source};

/// What the classification returns besides outcome and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    None,
    /// `row_ctid` and, where ctids repeat across partitions, `row_table`: which row it is.
    Row,
    /// All columns of the target as `column_N`, and the row: to stand in for the table later.
    Columns,
    /// `key` jsonb and `detail` text: for people.
    Explained,
    /// The row, `key` jsonb and `old_value`: to replace a value and keep the old one.
    Replaced,
}

impl Blueprint<'_> {
    /// The classification as seen by `moment`: columns `outcome` text, `value`, `unguarded` boolean; with
    /// [`Moment::After`] also `written` and `agrees` boolean; and those of `extra`.
    pub fn classification(&self, moment: Moment, extra: Extra) -> String {
        let sources = self.sources_sql();
        let unique: Vec<&UniqueIndex> = self.details.unique_indexes.iter().collect();
        let mut select = Vec::new();
        if self.is_stored() && (extra != Extra::None || !unique.is_empty()) {
            select.push("t.ctid AS row_ctid".to_string());
            if self.rows_need_table() {
                select.push("t.tableoid AS row_table".to_string());
            }
        }
        match extra {
            Extra::Columns => {
                select.push(format!(
                    "{} AS touched",
                    self.touched_sql().unwrap_or_else(|| "false".into())
                ));
                select.extend(
                    self.table
                        .columns
                        .iter()
                        .map(|c| format!("t.{} AS column_{}", c.sql(), c.number)),
                );
            }
            Extra::Explained => {
                select.push(format!("{} AS key", self.table.row_key_sql(self.catalog, "t")));
                select.push(format!("{} AS detail", self.detail_sql(&sources)));
            }
            Extra::Replaced => {
                select.push(format!("{} AS key", self.table.row_key_sql(self.catalog, "t")));
                select.push(format!("t.{} AS old_value", self.column.sql()));
            }
            Extra::None | Extra::Row => {}
        }
        select.push(format!("{} AS outcome", self.outcome_sql(moment, &sources)));
        select.push("found.value AS value".to_string());
        select.push(format!("{} AS unguarded", self.unguarded_sql()));
        if self.overwrites() {
            let set = self.is_set(&format!("t.{}", self.column.sql()));
            select.push(match moment == Moment::Levels {
                true => format!(
                    "CASE WHEN {} THEN t.mend_replaced ELSE {set} END AS replaces",
                    self.written_sql(moment)
                ),
                false => format!("{set} AS replaces"),
            });
        }
        if moment.has_written() {
            let target = format!("t.{}", self.column.sql());
            select.push(format!("{} AS written", self.written_sql(moment)));
            select.push(format!(
                "{} AS agrees",
                self.equal(&target, self.column.type_oid, &self.value_as_target())
            ));
        }
        for (i, index) in unique.iter().enumerate() {
            for (k, expression) in index.expressions.iter().enumerate() {
                let (value, plain) = self.new_row_value(expression);
                // An expression may raise for a value that a CHECK refuses: only candidates are asked.
                let value = match plain {
                    true => value,
                    false => format!(
                        "CASE WHEN {} = {} THEN {value} END",
                        self.outcome_sql(moment, &sources),
                        Reason::Filled.sql()
                    ),
                };
                let collation = index.collations.get(k).cloned().flatten();
                let collation = collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
                select.push(format!("{value}{collation} AS unique_{}_{}", i + 1, k + 1));
            }
            if let Some(predicate) = &index.predicate {
                select.push(format!(
                    "{} AS unique_{}_applies",
                    self.in_new_row(predicate, &[]),
                    i + 1
                ));
            }
        }

        let mut from = vec![self.target()];
        from.extend(sources.iter().flat_map(|s| s.joins.iter().cloned()));
        let values: Vec<&str> = sources.iter().map(|s| s.value.as_str()).collect();
        let value = match values.as_slice() {
            [] => format!("NULL::{}", self.value_type_sql()),
            [only] => only.to_string(),
            several => format!("COALESCE({})", several.join(", ")),
        };
        from.push(format!("CROSS JOIN LATERAL (SELECT {value} AS value) AS found"));
        from.extend(self.reference_join());
        from.extend(self.owner_joins());
        from.extend(self.foreign_key_joins());
        from.extend(self.old_key_joins());
        let mut conditions = vec![];
        if moment == Moment::During && !self.overwrites() {
            conditions.push(self.is_null(&format!("t.{}", self.column.sql())));
        }
        // Rows outside of the set are in the way under a unique index as well: there they are left out at the end.
        match self.rows.condition(self.catalog, self.table, "t") {
            Some(condition) if unique.is_empty() => conditions.push(condition),
            Some(condition) => select.push(format!("({condition}) AS in_set")),
            None => {}
        }
        if !conditions.is_empty() {
            from.push(format!("WHERE {}", conditions.join("\n  AND ")));
        }
        let derived = format!("SELECT\n  {}\n{}", select.join(",\n  "), from.join("\n"));
        if unique.is_empty() {
            derived
        } else {
            self.with_unique(&derived, &unique, moment, extra)
        }
    }

    /// FROM with the rows of the target.
    fn target(&self) -> String {
        match &self.rows {
            RowSet::New(row) => format!("FROM {row} AS t"),
            _ => format!("FROM {} AS t", self.overlays.relation_sql(self.table)),
        }
    }

    /// Do the rows have a place in the table?
    pub(super) fn is_stored(&self) -> bool {
        !matches!(self.rows, RowSet::New(_))
    }

    /// Every outcome that the classification can give, `filled` last, each once.
    pub(super) fn outcomes(&self, moment: Moment) -> Vec<Reason> {
        let mut outcomes: Vec<Reason> = self
            .cases(moment, &self.sources_sql())
            .into_iter()
            .map(|(_, outcome)| outcome)
            .collect();
        outcomes.extend(
            self.details
                .unique_indexes
                .iter()
                .map(|index| Reason::refused_by(&index.name)),
        );
        outcomes.push(Reason::Filled);
        let mut seen = std::collections::HashSet::new();
        // Kept from the end, so that `filled` stays last.
        outcomes.reverse();
        outcomes.retain(|outcome| seen.insert(outcome.clone()));
        outcomes.reverse();
        outcomes
    }

    pub(super) fn outcome_sql(&self, moment: Moment, sources: &[SourceSql]) -> String {
        reason::case(&self.cases(moment, sources), &Reason::Filled)
    }

    /// Conditions and outcomes in the order of the design, section 2; where none holds, the row is `filled`.
    pub(super) fn cases(&self, moment: Moment, sources: &[SourceSql]) -> Vec<(String, Reason)> {
        let target = format!("t.{}", self.column.sql());
        let mut whens: Vec<(String, Reason)> = Vec::new();
        let mut when = |condition: String, reason: Reason| whens.push((condition, reason));
        // What the run wrote was not excluded when it was written, whatever the condition says of it now.
        let unless_written = match moment.has_written() {
            true => format!("NOT {} AND ", self.written_sql(moment)),
            false => String::new(),
        };
        if let Some(condition) = &self.rule.only_where {
            when(
                format!("{unless_written}({}) IS NOT TRUE", condition.qualified),
                Reason::Excluded,
            );
        }
        if let Some(path) = &self.restriction {
            let tenant = self.tenant_of(path, "t", "restricted");
            let same = equals_text(self.catalog, &tenant, self.type_of(path.owner, path.column), "$1");
            when(format!("{unless_written}({same}) IS NOT TRUE"), Reason::Excluded);
        } else if self.rule.tenant.is_some() {
            // Nobody can say whose the rows are (said in the note), so none is of the tenant that was asked for.
            when("true".into(), Reason::Excluded);
        }
        // A value that the sources do not contradict stays, whatever the rule says.
        let stands = match self.overwrites() {
            true => {
                // Only what comes from outside of the column itself contradicts it: such sources come first.
                let differs = match sources.first().is_some_and(|first| first.witness.is_none()) {
                    true => differs(
                        self.catalog,
                        &target,
                        self.column.type_oid,
                        &self.value_from_outside(sources),
                    ),
                    false => "false".into(),
                };
                format!("{} AND ({differs}) IS NOT TRUE", self.is_set(&target))
            }
            false => self.is_set(&target),
        };
        when(format!("{unless_written}{stands}"), Reason::AlreadySet);
        let unset: Vec<String> = sources.iter().map(|s| s.unset.clone()).collect();
        when(
            if unset.is_empty() {
                "true".into()
            } else {
                unset.join(" AND ")
            },
            Reason::NoSource,
        );
        // Sources that give several values give a value, though `found` has none of theirs.
        let ambiguous: Vec<String> = sources.iter().filter_map(|s| s.ambiguous.clone()).collect();
        let no_value = match ambiguous.as_slice() {
            [] => self.is_null("found.value"),
            some => format!("{} AND NOT {}", self.is_null("found.value"), any(some)),
        };
        let missing: Vec<String> = sources
            .iter()
            .filter(|s| s.missing != "false")
            .map(|s| format!("({})", s.missing))
            .collect();
        if !missing.is_empty() {
            when(format!("{no_value} AND {}", any(&missing)), Reason::SourceMissing);
        }
        when(no_value, Reason::SourceNull);
        if !ambiguous.is_empty() {
            when(any(&ambiguous), Reason::Ambiguous);
        }
        if sources.len() > 1 {
            let conflict = match self.rule.on_conflict {
                OnConflict::First => None,
                OnConflict::Skip | OnConflict::Error => Some(any(&sources[1..]
                    .iter()
                    .zip(&self.rule.sources[1..])
                    .map(|(s, source)| {
                        let value = self.compared(moment, s);
                        differs(self.catalog, &value, self.value_type(source), "found.value")
                    })
                    .collect::<Vec<_>>())),
                OnConflict::AnyTwo => {
                    let set: Vec<String> = sources
                        .iter()
                        .map(|s| format!("CASE WHEN {} THEN 1 ELSE 0 END", s.set))
                        .collect();
                    Some(format!("{} > 1", set.join(" + ")))
                }
            };
            if let Some(conflict) = conflict {
                when(conflict, Reason::Conflict);
            }
        }
        if let Some((row, value)) = self.tenants() {
            when(differs(self.catalog, &row.0, row.1, &value.0), Reason::CrossTenant);
        }
        if moment.has_written() {
            // What was written has passed the constraints themselves.
            when(self.written_sql(moment), Reason::Filled);
        }
        whens.extend(self.refusals());
        whens
    }

    pub(super) fn reference_join(&self) -> Option<String> {
        let reference = self.reference.as_ref()?;
        let needed = matches!(self.guard, Guard::By(_))
            || self.foreign_keys().any(|key| self.is_reference(key))
            || (self.refuse_dangling && !reference.declared);
        let key = format!("referenced.{}", self.column_sql(reference.parent, reference.key));
        needed.then(|| {
            format!(
                "LEFT JOIN {} AS referenced ON {}",
                self.overlays.relation_sql(self.table_of(reference.parent)),
                self.same_key(&key, reference.parent, reference.key, "found.value", Some(self.column))
            )
        })
    }

    /// The parents through which each side knows its tenant.
    pub(super) fn owner_joins(&self) -> Vec<String> {
        let mut joins = Vec::new();
        let mut along = |path: &TenantPath, start: &str, prefix: &str| {
            let table = match start {
                "referenced" => path.table,
                _ => self.table.oid,
            };
            let others = path.otherwise.iter().zip(1..);
            let others = others.map(|(path, n)| (path, format!("{prefix}_or_{n}")));
            for (path, prefix) in std::iter::once((path, prefix.to_string())).chain(others) {
                let from = Joined::columns(start, table, &path.columns);
                joins.extend(self.chain(&prefix, from, &path.hops).0);
            }
        };
        if let Guard::By(guard) = &self.guard {
            along(&guard.row, "t", "owner");
            along(&guard.value, "referenced", "referenced_owner");
        }
        if let Some(path) = &self.restriction {
            along(path, "t", "restricted");
        }
        joins
    }

    /// The tenants of both sides with their types, where there is a guard.
    pub(super) fn tenants(&self) -> Option<((String, u32), (String, u32))> {
        let Guard::By(guard) = &self.guard else { return None };
        Some((
            (
                self.tenant_of(&guard.row, "t", "owner"),
                self.type_of(guard.row.owner, guard.row.column),
            ),
            (
                self.tenant_of(&guard.value, "referenced", "referenced_owner"),
                self.type_of(guard.value.owner, guard.value.column),
            ),
        ))
    }

    pub(super) fn tenant_of(&self, path: &TenantPath, start: &str, prefix: &str) -> String {
        if prefix == "restricted" && path.hops.is_empty() && path.column == self.column.number {
            // The tenant key is what is filled: a row is whose it says, else whose it will say.
            return format!("COALESCE(t.{}, found.value)", self.column.sql());
        }
        let end = |path: &TenantPath, prefix: &str| {
            let alias = match path.hops.len() {
                0 => start.to_string(),
                length => hop_alias(prefix, length, length),
            };
            format!("{alias}.{}", self.column_sql(path.owner, path.column))
        };
        let others = path.otherwise.iter().zip(1..);
        let others = others.map(|(path, n)| end(path, &format!("{prefix}_or_{n}")));
        let all: Vec<String> = std::iter::once(end(path, prefix)).chain(others).collect();
        match all.as_slice() {
            [only] => only.clone(),
            several => format!("COALESCE({})", several.join(", ")),
        }
    }

    pub(super) fn unguarded_sql(&self) -> String {
        match self.tenants() {
            Some((row, value)) => format!("({} IS NULL OR {} IS NULL)", row.0, value.0),
            None => "false".into(),
        }
    }

    pub(super) fn written_sql(&self, moment: Moment) -> String {
        match moment {
            Moment::After | Moment::Levels => self.written_row("t", moment).unwrap_or_else(|| "false".into()),
            Moment::Before | Moment::During => "false".into(),
        }
    }

    /// `value`, of the type of the target, is NULL. Of a row type, IS NULL would ask its fields.
    pub(super) fn is_null(&self, value: &str) -> String {
        match self.is_composite() {
            true => format!("{value} IS NOT DISTINCT FROM NULL"),
            false => format!("{value} IS NULL"),
        }
    }

    /// It is not NULL.
    pub(super) fn is_set(&self, value: &str) -> String {
        match self.is_composite() {
            true => format!("{value} IS DISTINCT FROM NULL"),
            false => format!("{value} IS NOT NULL"),
        }
    }

    fn is_composite(&self) -> bool {
        let base = self.catalog.base_type(self.column.type_oid, -1);
        base.is_some_and(|(base, _)| base.kind == 'c')
    }

    /// The run has written this row of the target; `None` where it has written none yet.
    fn written_row(&self, alias: &str, moment: Moment) -> Option<String> {
        let column = self.column.sql();
        match moment {
            Moment::After | Moment::During if !self.written_as.is_empty() => Some(format!(
                "({} AND {})",
                written_as(alias, &self.written_as),
                self.is_set(&format!("{alias}.{column}"))
            )),
            Moment::Levels if self.overlays.replaces(self.table) => Some(format!(
                "({alias}.mend_written AND {})",
                self.is_set(&format!("{alias}.{column}"))
            )),
            Moment::Levels | Moment::Before | Moment::During | Moment::After => None,
        }
    }

    /// What a source says when it is compared with the others. For one that leads up the table's own tree not the value
    /// that the row up there has by now: that changes while the run goes on, and with it what is a conflict. What it had
    /// before the run, or what its own sources say, does not.
    fn compared(&self, moment: Moment, source: &SourceSql) -> String {
        let Some(witness) = &source.witness else {
            return source.value.clone();
        };
        let own = format!("{}.{}", witness.alias, self.column.sql());
        let before = match self.written_row(&witness.alias, moment) {
            Some(written) => format!("CASE WHEN NOT {written} THEN {own} END"),
            None => own,
        };
        let mut values = witness.values.clone();
        match self.overwrites() {
            true => values.push(before),
            false => values.insert(0, before),
        }
        format!("COALESCE({})", values.join(", "))
    }

    /// The first value that does not come up the table's own tree, in the target's type.
    fn value_from_outside(&self, sources: &[SourceSql]) -> String {
        let values: Vec<&str> = sources
            .iter()
            .filter(|s| s.witness.is_none())
            .map(|s| s.value.as_str())
            .collect();
        self.as_target(&format!("COALESCE({})", values.join(", ")))
    }

    /// The row was written before in this transaction: Postgres then checks all its foreign keys again, not only those
    /// that change, as it does when a new row is inserted. `None` where no row can have been.
    pub(super) fn touched_sql(&self) -> Option<String> {
        if !self.is_stored() {
            return Some("true".into());
        }
        if self.overlays.replaces(self.table) {
            return Some("t.mend_touched".into());
        }
        (!self.touched.is_empty()).then(|| written_as("t", &self.touched))
    }

    /// What happened to each source, in words, and whose the value's row is.
    pub(super) fn detail_sql(&self, sources: &[SourceSql]) -> String {
        let mut parts: Vec<String> = sources.iter().map(|s| s.state.clone()).collect();
        if let (Some((row, value)), Some(reference)) = (self.tenants(), &self.reference) {
            let parent = self.table_of(reference.parent);
            let name = Literal::new(&format!("{} ", self.catalog.display(parent))).to_string();
            parts.push(format!(
                "CASE WHEN {} THEN {name} || {} || ' belongs to tenant ' || {} || ', the row to ' || {} END",
                differs(self.catalog, &row.0, row.1, &value.0),
                self.catalog.text_sql("found.value", self.column.type_oid),
                self.catalog.text_sql(&value.0, value.1),
                self.catalog.text_sql(&row.0, row.1),
            ));
        }
        if parts.is_empty() {
            return "NULL::pg_catalog.text".into();
        }
        format!("pg_catalog.concat_ws('; ',\n    {})", parts.join(",\n    "))
    }

    /// Are ctids repeated across the tables that make up the target?
    pub(super) fn rows_need_table(&self) -> bool {
        self.table.kind == 'p'
    }

    pub(super) fn target_column_sql(&self, column: i16) -> String {
        format!("t.{}", self.column_sql(self.table.oid, column))
    }

    /// Every expression that is evaluated over a row of the target, the caller's condition left out.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let operands = self.rule.sources.iter().flat_map(|source| &source.start);
        let computed = operands.filter_map(|operand| match operand {
            Operand::Expression(expression) => Some(expression),
            Operand::Column(_) => None,
        });
        computed.chain(&self.further)
    }

    /// The type of the value that a source gives.
    pub(super) fn value_type(&self, source: &Source) -> u32 {
        match (source.value(self.table.oid), source.start.first()) {
            (Some((table, column)), _) => self.type_of(table, column),
            (None, Some(Operand::Expression(expression))) => expression.type_oid,
            (None, _) => 0,
        }
    }

    pub(super) fn equal(&self, a: &str, a_type: u32, b: &str) -> String {
        equal(self.catalog, a, a_type, b)
    }

    pub(super) fn table_of(&self, oid: u32) -> &Table {
        self.catalog.table(oid).unwrap_or(self.table)
    }

    pub(super) fn column_sql(&self, table: u32, column: i16) -> String {
        let table = self.table_of(table);
        table
            .column(column)
            .map(|c| Identifier::new(&c.name).to_string())
            .unwrap_or_default()
    }

    pub(super) fn type_of(&self, table: u32, column: i16) -> u32 {
        self.table_of(table)
            .column(column)
            .map(|c| c.type_oid)
            .unwrap_or_default()
    }
}
