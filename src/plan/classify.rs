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

use super::expression::{all_set, any, differs, equal, indent};
use super::{Blueprint, View};
use crate::catalog::{Check, Table, UniqueIndex};
use crate::identifier::{Identifier, Literal};
use crate::infer::tenant::{Guard, TenantPath};
use crate::rule::{OnConflict, Source, typed};

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
}

/// The text of one source's part of the query.
struct SourceSql {
    joins: Vec<String>,
    /// The key is there.
    set: String,
    /// It is not.
    unset: String,
    /// It is set and leads to no row.
    missing: String,
    /// The value, NULL if none.
    value: String,
    /// Several rows with different values; `None` where that cannot be.
    ambiguous: Option<String>,
    /// In words, for `detail`.
    state: String,
}

impl Blueprint<'_> {
    /// The classification as seen by `view`: columns `outcome` text, `value`, `unguarded` boolean; with
    /// [`View::Proof`] also `written` and `agrees` boolean; and those of `extra`.
    pub fn classification(&self, view: View, extra: Extra) -> String {
        let sources = self.sources_sql();
        let unique: Vec<&UniqueIndex> = self.details.unique_indexes.iter().collect();
        let mut select = Vec::new();
        if extra != Extra::None || !unique.is_empty() {
            select.push("t.ctid AS row_ctid".to_string());
            if self.rows_need_table() {
                select.push("t.tableoid AS row_table".to_string());
            }
        }
        match extra {
            Extra::Columns => {
                select.extend(
                    self.table
                        .columns
                        .iter()
                        .map(|c| format!("t.{} AS column_{}", c.sql(), c.number)),
                );
            }
            Extra::Explained => {
                select.push(format!("{} AS key", self.key_sql()));
                select.push(format!("{} AS detail", self.detail_sql(&sources)));
            }
            Extra::None | Extra::Row => {}
        }
        select.push(format!("{} AS outcome", self.outcome_sql(view, &sources)));
        select.push("found.value AS value".to_string());
        select.push(format!("{} AS unguarded", self.unguarded_sql()));
        if let View::Proof(_) = view {
            let target = format!("t.{}", self.column.sql());
            select.push(format!("{} AS written", self.written_sql(view)));
            select.push(format!(
                "{} AS agrees",
                self.equal(&target, self.column.type_oid, "found.value")
            ));
        }
        for (i, index) in unique.iter().enumerate() {
            for (k, expression) in index.expressions.iter().enumerate() {
                select.push(format!(
                    "{} AS unique_{}_{}",
                    self.new_row_value(expression),
                    i + 1,
                    k + 1
                ));
            }
            if let Some(predicate) = &index.predicate {
                select.push(format!(
                    "{} AS unique_{}_applies",
                    self.in_new_row(predicate, &[]),
                    i + 1
                ));
            }
        }

        let mut from = vec![format!("FROM {} AS t", self.overlays.from_sql(self.table))];
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
        if view == View::Missing {
            from.push(format!("WHERE t.{} IS NULL", self.column.sql()));
        }
        let derived = format!("SELECT\n  {}\n{}", select.join(",\n  "), from.join("\n"));
        if unique.is_empty() {
            derived
        } else {
            self.with_unique(&derived, &unique, view, extra)
        }
    }

    /// Every outcome that the classification can give, `filled` last, each once.
    pub(super) fn outcomes(&self, view: View) -> Vec<String> {
        let mut outcomes: Vec<String> = self
            .cases(view, &self.sources_sql())
            .into_iter()
            .map(|(_, outcome)| outcome)
            .collect();
        outcomes.extend(self.details.unique_indexes.iter().map(|index| refused_by(&index.name)));
        outcomes.push("filled".into());
        let mut seen = std::collections::HashSet::new();
        // Kept from the end, so that `filled` stays last.
        outcomes.reverse();
        outcomes.retain(|outcome| seen.insert(outcome.clone()));
        outcomes.reverse();
        outcomes
    }

    fn sources_sql(&self) -> Vec<SourceSql> {
        self.rule
            .sources
            .iter()
            .enumerate()
            .map(|(i, source)| self.source_sql(i + 1, source))
            .collect()
    }

    fn outcome_sql(&self, view: View, sources: &[SourceSql]) -> String {
        let mut sql = String::from("CASE");
        for (condition, outcome) in self.cases(view, sources) {
            sql.push_str(&format!("\n    WHEN {condition} THEN {}", Literal::new(&outcome)));
        }
        sql.push_str("\n    ELSE 'filled'\n  END");
        sql
    }

    /// Conditions and outcomes in the order of the design, section 2; where none holds, the row is `filled`.
    fn cases(&self, view: View, sources: &[SourceSql]) -> Vec<(String, String)> {
        let target = format!("t.{}", self.column.sql());
        let mut whens: Vec<(String, String)> = Vec::new();
        let mut when = |condition: String, outcome: &str| whens.push((condition, outcome.to_string()));
        if let Some(condition) = &self.rule.only_where {
            when(format!("({}) IS NOT TRUE", condition.qualified), "excluded");
        }
        if let Some(path) = &self.restriction {
            let tenant = self.tenant_of(path, "t", "restricted");
            let wanted = format!("CAST($1 AS {})", self.type_sql_of(path.owner, path.column));
            let same = equal(self.catalog, &tenant, self.type_of(path.owner, path.column), &wanted);
            when(format!("({same}) IS NOT TRUE"), "excluded");
        } else if self.rule.tenant.is_some() {
            // Nobody can say whose the rows are (said in the note), so none is of the tenant that was asked for.
            when("true".into(), "excluded");
        }
        let already = match view {
            View::Proof(_) => format!("{target} IS NOT NULL AND NOT {}", self.written_sql(view)),
            _ => format!("{target} IS NOT NULL"),
        };
        when(already, "already_set");
        let unset: Vec<String> = sources.iter().map(|s| s.unset.clone()).collect();
        when(
            if unset.is_empty() {
                "true".into()
            } else {
                unset.join(" AND ")
            },
            "no_source",
        );
        // Sources that give several values give a value, though `found` has none of theirs.
        let ambiguous: Vec<String> = sources.iter().filter_map(|s| s.ambiguous.clone()).collect();
        let no_value = match ambiguous.as_slice() {
            [] => "found.value IS NULL".to_string(),
            some => format!("found.value IS NULL AND NOT {}", any(some)),
        };
        let missing: Vec<String> = sources
            .iter()
            .filter(|s| s.missing != "false")
            .map(|s| format!("({})", s.missing))
            .collect();
        if !missing.is_empty() {
            when(format!("{no_value} AND {}", any(&missing)), "source_missing");
        }
        when(no_value, "source_null");
        if !ambiguous.is_empty() {
            when(any(&ambiguous), "ambiguous");
        }
        if sources.len() > 1 {
            let conflict = match self.rule.on_conflict {
                OnConflict::First => None,
                OnConflict::Skip | OnConflict::Error => Some(any(&sources[1..]
                    .iter()
                    .zip(&self.rule.sources[1..])
                    .map(|(s, source)| {
                        let (table, column) = source.value(self.table.oid);
                        differs(self.catalog, &s.value, self.type_of(table, column), "found.value")
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
                when(conflict, "conflict");
            }
        }
        if let Some((row, value)) = self.tenants() {
            when(differs(self.catalog, &row.0, row.1, &value.0), "cross_tenant");
        }
        if let View::Proof(_) = view {
            // What was written has passed the constraints themselves.
            when(self.written_sql(view), "filled");
        }
        whens.extend(self.refusals());
        whens
    }

    /// Conditions under which a constraint refuses the value, with the outcome that names it.
    fn refusals(&self) -> Vec<(String, String)> {
        let mut refusals = Vec::new();
        // What the type itself refuses comes first: behind it the value can be cast.
        if let Some((type_name, condition)) = self.type_limit() {
            refusals.push((condition, refused_by(&type_name)));
        }
        for check in &self.details.domain_checks {
            let value = format!("SELECT {} AS \"value\"", self.value_as_target());
            let holds = format!("(SELECT {} FROM ({value}) AS domain_value)", check.expression);
            refusals.push((format!("NOT {holds}"), refused_by(&check.name)));
        }
        for check in &self.details.checks {
            refusals.push((format!("NOT {}", self.check_sql(check)), refused_by(&check.name)));
        }
        for (i, key) in self.foreign_keys().enumerate() {
            let alias = if self.is_reference(key) {
                "referenced".to_string()
            } else {
                format!("foreign_key_{}", i + 1)
            };
            let others: Vec<String> = key
                .columns
                .iter()
                .filter(|c| **c != self.column.number)
                .filter_map(|c| self.table.column(*c))
                .map(|c| format!("t.{}", c.sql()))
                .collect();
            let parent_column = self.column_sql(key.parent, key.parent_columns[0]);
            let dangling = format!("{alias}.{parent_column} IS NULL");
            let condition = match (others.is_empty(), key.match_full) {
                (true, _) => dangling,
                // MATCH FULL: all or none; MATCH SIMPLE: a NULL part exempts the row.
                (false, true) => format!("(NOT ({}) OR {dangling})", all_set(&others)),
                (false, false) => format!("{} AND {dangling}", all_set(&others)),
            };
            refusals.push((condition, refused_by(&key.name)));
        }
        if self.refuse_dangling
            && let Some(reference) = self.reference.as_ref().filter(|r| !r.declared)
            && let Some(parent) = self.catalog.table(reference.parent)
        {
            let name = format!(
                "{} -> {} (no such row)",
                typed(&self.column.name),
                self.catalog.display(parent)
            );
            let key = self.column_sql(reference.parent, reference.key);
            refusals.push((format!("referenced.{key} IS NULL"), refused_by(&name)));
        }
        refusals
    }

    fn check_sql(&self, check: &Check) -> String {
        self.in_new_row(&check.expression, &check.columns)
    }

    /// `expression` (bare column names) evaluated on the row as it would be: the target column replaced by the value,
    /// generated columns computed anew.
    fn in_new_row(&self, expression: &str, columns: &[i16]) -> String {
        let generated: Vec<&(i16, String)> = self
            .details
            .generated
            .iter()
            .filter(|(n, _)| columns.is_empty() || columns.contains(n))
            .collect();
        let wanted = |n: i16| columns.is_empty() || columns.contains(&n) || !generated.is_empty();
        let stored = self
            .table
            .columns
            .iter()
            .filter(|c| !c.generated && wanted(c.number))
            .map(|c| {
                let value = if c.number == self.column.number {
                    self.value_as_target()
                } else {
                    format!("t.{}", c.sql())
                };
                format!("{value} AS {}", c.sql())
            });
        let mut row = format!("(SELECT {}) AS new_row", stored.collect::<Vec<_>>().join(", "));
        if !generated.is_empty() {
            let computed: Vec<String> = generated
                .iter()
                .filter_map(|(n, expression)| self.table.column(*n).map(|c| format!("({expression}) AS {}", c.sql())))
                .collect();
            row = format!("(SELECT new_row.*, {} FROM {row}) AS new_row", computed.join(", "));
        }
        format!("(SELECT {expression} FROM {row})")
    }

    /// A key of a unique index on the row as it would be; plain columns without the detour.
    fn new_row_value(&self, expression: &str) -> String {
        match self
            .table
            .columns
            .iter()
            .find(|c| c.quoted == expression && !c.generated)
        {
            Some(c) if c.number == self.column.number => self.value_as_target(),
            Some(c) => format!("t.{}", c.sql()),
            None => self.in_new_row(expression, &[]),
        }
    }

    /// Wraps the classification: rows whose value would collide, with a row of the table or with each other, are
    /// refused. All rows that collide with each other are: nobody can say which of them is right.
    fn with_unique(&self, derived: &str, unique: &[&UniqueIndex], view: View, extra: Extra) -> String {
        let written = matches!(view, View::Proof(_));
        let candidate = if written {
            "outcome = 'filled' AND NOT written"
        } else {
            "outcome = 'filled'"
        };
        let mut windows = Vec::new();
        let mut whens = Vec::new();
        for (i, index) in unique.iter().enumerate() {
            let n = i + 1;
            let keys: Vec<String> = (1..=index.expressions.len())
                .map(|k| format!("unique_{n}_{k}"))
                .collect();
            let applies = index.predicate.as_ref().map(|_| format!("unique_{n}_applies"));
            let mut partition = vec![candidate.to_string()];
            partition.extend(applies.iter().map(|a| format!("{a} IS TRUE")));
            partition.extend(keys.iter().cloned());
            windows.push(format!(
                "count(*) OVER (PARTITION BY {}) AS unique_{n}_same",
                partition.join(", ")
            ));

            let mut matches: Vec<String> = index
                .expressions
                .iter()
                .zip(&keys)
                .zip(&index.types)
                .map(|((expression, key), type_oid)| {
                    let existing = format!("({expression})");
                    let key = format!("derived.{key}");
                    if index.nulls_not_distinct {
                        format!("{existing} IS NOT DISTINCT FROM {key}")
                    } else {
                        equal(self.catalog, &existing, *type_oid, &key)
                    }
                })
                .collect();
            matches.extend(index.predicate.iter().map(|p| format!("({p})")));
            // The row itself is in the index too if the target column is not a plain part of its key.
            if !index.expressions.contains(&self.column.quoted) {
                matches.push("existing.ctid <> derived.row_ctid".into());
            }
            let exists = format!(
                "EXISTS (SELECT FROM {} AS existing WHERE {})",
                self.overlays.from_sql(self.table),
                matches.join(" AND ")
            );
            let mut conditions = vec![candidate.to_string()];
            conditions.extend(applies);
            if !index.nulls_not_distinct {
                conditions.push(all_set(&keys));
            }
            conditions.push(format!("(unique_{n}_same > 1 OR {exists})"));
            let refused = refused_by(&index.name);
            whens.push(format!(
                "WHEN {} THEN {}",
                conditions.join(" AND "),
                Literal::new(&refused)
            ));
        }
        let mut columns: Vec<String> = Vec::new();
        if extra != Extra::None {
            columns.push("row_ctid".into());
            if self.rows_need_table() {
                columns.push("row_table".into());
            }
        }
        match extra {
            Extra::Columns => columns.extend(self.table.columns.iter().map(|c| format!("column_{}", c.number))),
            Extra::Explained => columns.extend(["key".into(), "detail".into()]),
            Extra::None | Extra::Row => {}
        }
        columns.push(format!(
            "CASE\n    {}\n    ELSE outcome\n  END AS outcome",
            whens.join("\n    ")
        ));
        columns.extend(["value".into(), "unguarded".into()]);
        if written {
            columns.extend(["written".into(), "agrees".into()]);
        }
        format!(
            "SELECT\n  {}\nFROM (\n  SELECT derived.*,\n    {}\n  FROM (\n{}\n  ) AS derived\n) AS derived",
            columns.join(",\n  "),
            windows.join(",\n    "),
            indent(derived, 4)
        )
    }

    fn source_sql(&self, n: usize, source: &Source) -> SourceSql {
        let own: Vec<String> = source.columns.iter().map(|c| self.own(*c)).collect();
        let set = all_set(&own);
        let not_set = any(&own.iter().map(|c| format!("{c} IS NULL")).collect::<Vec<_>>());
        let names = self.table.names_of(&source.columns).join(", ");
        let given = own
            .iter()
            .map(|c| format!("{c}::pg_catalog.text"))
            .collect::<Vec<_>>()
            .join(", ");
        let given = format!("pg_catalog.concat_ws(', ', {given})");
        let unset = Literal::new(&format!("{names} is NULL")).to_string();
        let Some((last, _)) = source.hops.split_last() else {
            let state = format!("{} || {given}", Literal::new(&format!("{names} gives ")));
            return SourceSql {
                joins: vec![],
                missing: "false".into(),
                value: own[0].clone(),
                ambiguous: None,
                state: format!("CASE WHEN {set} THEN {state} ELSE {unset} END"),
                set,
                unset: not_set,
            };
        };
        let label = source.to_path(self.catalog, self.table).to_string();
        let key = format!("{} || {given}", Literal::new(&format!("{names} = ")));
        let value_name = Literal::new(&format!(": {} is NULL", self.path_end(source))).to_string();
        let no_row = Literal::new(&format!(": {} finds no row", label)).to_string();
        if source.is_unique(self.catalog) {
            let (joins, missing) = self.chain(&format!("source_{n}"), "t", &source.columns, source);
            let alias = hop_alias(&format!("source_{n}"), source.hops.len(), source.hops.len());
            let value = format!("{alias}.{}", self.column_sql(last.parent, last.columns[0]));
            let missing = format!("{set} AND {missing}");
            let state = format!(
                "CASE WHEN {not_set} THEN {unset} WHEN {missing} THEN {key} || {no_row} \
                 WHEN {value} IS NULL THEN {key} || {value_name} ELSE {key} || ' gives ' || {value}::pg_catalog.text END"
            );
            return SourceSql {
                joins,
                set,
                unset: not_set,
                missing,
                value,
                ambiguous: None,
                state,
            };
        }
        // Keys that are not unique: the parents are aggregated per key, so that a row of the target stays one row.
        let alias = format!("source_{n}");
        let first = &source.hops[0];
        let (chain, missing) = self.rest_of_chain(source);
        let keys: Vec<String> = first
            .key
            .iter()
            .map(|c| format!("hop_1.{}", self.column_sql(first.parent, *c)))
            .collect();
        let value = format!(
            "hop_{}.{}",
            source.hops.len(),
            self.column_sql(last.parent, last.columns[0])
        );
        let select: Vec<String> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| format!("{key} AS key_{}", i + 1))
            .collect();
        let on: Vec<String> = own
            .iter()
            .zip(&first.key)
            .enumerate()
            .map(|(i, (own, key))| self.equal(&format!("{alias}.key_{}", i + 1), self.type_of(first.parent, *key), own))
            .collect();
        let from = self.overlays.from_sql(self.table_of(first.parent));
        let join = format!(
            "LEFT JOIN (\n  SELECT {},\n    pg_catalog.array_agg(DISTINCT {value}) FILTER (WHERE {value} IS NOT NULL) AS given,\n    \
             pg_catalog.bool_or({missing}) AS missing\n  FROM {from} AS hop_1\n{}  GROUP BY {}\n) AS {alias} ON {}",
            select.join(", "),
            chain.iter().map(|join| format!("  {join}\n")).collect::<String>(),
            keys.join(", "),
            on.join(" AND ")
        );
        let ambiguous = format!("(pg_catalog.cardinality({alias}.given) > 1) IS TRUE");
        let value = format!("CASE WHEN pg_catalog.cardinality({alias}.given) = 1 THEN {alias}.given[1] END");
        let missing = format!("{set} AND {alias}.missing IS NOT FALSE");
        let state = format!(
            "CASE WHEN {not_set} THEN {unset} \
             WHEN {alias}.given IS NOT NULL THEN {key} || ' gives ' || pg_catalog.array_to_string({alias}.given, ' and ') \
             WHEN {missing} THEN {key} || {no_row} ELSE {key} || {value_name} END"
        );
        SourceSql {
            joins: vec![join],
            set,
            unset: not_set,
            missing,
            value,
            ambiguous: Some(ambiguous),
            state,
        }
    }

    /// LEFT JOINs along a path of unique keys, and the condition that a key on the way finds no row (the first key
    /// being set).
    fn chain(&self, prefix: &str, start: &str, columns: &[i16], source: &Source) -> (Vec<String>, String) {
        let length = source.hops.len();
        let mut joins = Vec::new();
        let mut missing = Vec::new();
        let mut from = (start.to_string(), self.start_table(start), columns.to_vec());
        for (i, hop) in source.hops.iter().enumerate() {
            let alias = hop_alias(prefix, i + 1, length);
            joins.push(self.join(&alias, hop.parent, &hop.key, &from));
            let not_found = format!("{alias}.{} IS NULL", self.column_sql(hop.parent, hop.key[0]));
            if i == 0 {
                missing.push(not_found);
            } else {
                let set: Vec<String> = from
                    .2
                    .iter()
                    .map(|c| format!("{}.{}", from.0, self.column_sql(from.1, *c)))
                    .collect();
                missing.push(format!("({} AND {not_found})", all_set(&set)));
            }
            from = (alias, hop.parent, hop.columns.clone());
        }
        (joins, any(&missing))
    }

    /// As `chain`, from the first parent (`hop_1`) on.
    fn rest_of_chain(&self, source: &Source) -> (Vec<String>, String) {
        let mut joins = Vec::new();
        let mut missing = Vec::new();
        for (i, pair) in source.hops.windows(2).enumerate() {
            let (here, next) = (format!("hop_{}", i + 1), format!("hop_{}", i + 2));
            joins.push(self.join(
                &next,
                pair[1].parent,
                &pair[1].key,
                &(here.clone(), pair[0].parent, pair[0].columns.clone()),
            ));
            let set: Vec<String> = pair[0]
                .columns
                .iter()
                .map(|c| format!("{here}.{}", self.column_sql(pair[0].parent, *c)))
                .collect();
            missing.push(format!(
                "({} AND {next}.{} IS NULL)",
                all_set(&set),
                self.column_sql(pair[1].parent, pair[1].key[0])
            ));
        }
        (joins, any(&missing))
    }

    fn join(&self, alias: &str, parent: u32, key: &[i16], from: &(String, u32, Vec<i16>)) -> String {
        let on: Vec<String> = key
            .iter()
            .zip(&from.2)
            .map(|(key, column)| {
                self.equal(
                    &format!("{alias}.{}", self.column_sql(parent, *key)),
                    self.type_of(parent, *key),
                    &format!("{}.{}", from.0, self.column_sql(from.1, *column)),
                )
            })
            .collect();
        format!(
            "LEFT JOIN {} AS {alias} ON {}",
            self.overlays.from_sql(self.table_of(parent)),
            on.join(" AND ")
        )
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
                self.overlays.from_sql(self.table_of(reference.parent)),
                self.equal(&key, self.type_of(reference.parent, reference.key), "found.value")
            )
        })
    }

    /// The parents through which each side knows its tenant.
    fn owner_joins(&self) -> Vec<String> {
        let mut joins = Vec::new();
        let mut along = |path: &TenantPath, start: &str, prefix: &str| {
            let source = Source {
                columns: path.columns.clone(),
                hops: path.hops.clone(),
            };
            joins.extend(self.chain(prefix, start, &path.columns, &source).0);
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

    fn foreign_key_joins(&self) -> Vec<String> {
        self.foreign_keys()
            .enumerate()
            .filter(|(_, key)| !self.is_reference(key))
            .map(|(i, key)| {
                let alias = format!("foreign_key_{}", i + 1);
                let on: Vec<String> = key
                    .columns
                    .iter()
                    .zip(&key.parent_columns)
                    .map(|(column, parent_column)| {
                        let value = if *column == self.column.number {
                            "found.value".into()
                        } else {
                            self.own(*column)
                        };
                        self.equal(
                            &format!("{alias}.{}", self.column_sql(key.parent, *parent_column)),
                            self.type_of(key.parent, *parent_column),
                            &value,
                        )
                    })
                    .collect();
                format!(
                    "LEFT JOIN {} AS {alias} ON {}",
                    self.overlays.from_sql(self.table_of(key.parent)),
                    on.join(" AND ")
                )
            })
            .collect()
    }

    /// The tenants of both sides with their types, where there is a guard.
    fn tenants(&self) -> Option<((String, u32), (String, u32))> {
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

    fn tenant_of(&self, path: &TenantPath, start: &str, prefix: &str) -> String {
        let alias = match path.hops.len() {
            0 => start.to_string(),
            length => hop_alias(prefix, length, length),
        };
        format!("{alias}.{}", self.column_sql(path.owner, path.column))
    }

    fn unguarded_sql(&self) -> String {
        match self.tenants() {
            Some((row, value)) => format!("({} IS NULL OR {} IS NULL)", row.0, value.0),
            None => "false".into(),
        }
    }

    fn written_sql(&self, view: View) -> String {
        match view {
            View::Proof(id) => format!(
                "(t.xmin = '{id}'::pg_catalog.xid AND t.{} IS NOT NULL)",
                self.column.sql()
            ),
            _ => "false".into(),
        }
    }

    fn key_sql(&self) -> String {
        let pairs: Vec<String> = match self.table.primary_key() {
            Some(key) => key
                .columns
                .iter()
                .filter_map(|c| self.table.column(*c))
                .map(|c| format!("{}, t.{}", Literal::new(&c.name), c.sql()))
                .collect(),
            None if self.rows_need_table() => {
                vec![
                    "'table', t.tableoid::pg_catalog.regclass::pg_catalog.text".into(),
                    "'ctid', t.ctid::pg_catalog.text".into(),
                ]
            }
            None => vec!["'ctid', t.ctid::pg_catalog.text".into()],
        };
        format!("pg_catalog.jsonb_build_object({})", pairs.join(", "))
    }

    /// What happened to each source, in words, and whose the value's row is.
    fn detail_sql(&self, sources: &[SourceSql]) -> String {
        let mut parts: Vec<String> = sources.iter().map(|s| s.state.clone()).collect();
        if let (Some((row, value)), Some(reference)) = (self.tenants(), &self.reference) {
            let parent = self.table_of(reference.parent);
            let name = Literal::new(&format!("{} ", self.catalog.display(parent))).to_string();
            parts.push(format!(
                "CASE WHEN {} THEN {name} || found.value::pg_catalog.text || ' belongs to tenant ' || \
                 {}::pg_catalog.text || ', the row to ' || {}::pg_catalog.text END",
                differs(self.catalog, &row.0, row.1, &value.0),
                value.0,
                row.0
            ));
        }
        if parts.is_empty() {
            return "NULL::pg_catalog.text".into();
        }
        format!("pg_catalog.concat_ws('; ',\n    {})", parts.join(",\n    "))
    }

    fn path_end(&self, source: &Source) -> String {
        let (table, column) = source.value(self.table.oid);
        let table = self.table_of(table);
        format!(
            "{}.{}",
            typed(&table.name),
            table.column(column).map(|c| typed(&c.name)).unwrap_or_default()
        )
    }

    /// Are ctids repeated across the tables that make up the target?
    pub(super) fn rows_need_table(&self) -> bool {
        self.table.kind == 'p'
    }

    fn start_table(&self, alias: &str) -> u32 {
        match (alias, &self.reference) {
            ("referenced", Some(reference)) => reference.parent,
            _ => self.table.oid,
        }
    }

    fn own(&self, column: i16) -> String {
        format!("t.{}", self.column_sql(self.table.oid, column))
    }

    fn equal(&self, a: &str, a_type: u32, b: &str) -> String {
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

    fn type_sql_of(&self, table: u32, column: i16) -> String {
        let base = self.catalog.base_type(self.type_of(table, column), -1);
        base.map(|(base, _)| base.sql())
            .unwrap_or_else(|| "pg_catalog.text".into())
    }
}

/// The outcome of a row that a constraint refuses.
fn refused_by(name: &str) -> String {
    format!("constraint_failed: {name}")
}

fn hop_alias(prefix: &str, hop: usize, of: usize) -> String {
    if of == 1 {
        prefix.to_string()
    } else {
        format!("{prefix}_{hop}")
    }
}
