//! How each source reads: its joins, its value, and what can be said of it when it gives none.

use super::Blueprint;
use super::expression::{all_set, any, differs};
use super::join::{collated, same_key};
use crate::catalog::Column;
use crate::identifier::Literal;
use crate::rule::{Source, typed};

/// The text of one source's part of the query.
pub(super) struct SourceSql {
    pub(super) joins: Vec<String>,
    /// The key is there.
    pub(super) set: String,
    /// It is not.
    pub(super) unset: String,
    /// It is set and leads to no row.
    pub(super) missing: String,
    /// The value, NULL if none.
    pub(super) value: String,
    /// Several rows with different values; `None` where that cannot be.
    pub(super) ambiguous: Option<String>,
    /// In words, for `detail`.
    pub(super) state: String,
    /// For a source that leads up the table's own tree: what can be said of the row up there.
    pub(super) witness: Option<Witness>,
}

/// Another row of the target table, and what its own sources say.
pub(super) struct Witness {
    pub(super) alias: String,
    /// Their values, in order of precedence.
    pub(super) values: Vec<String>,
}

impl Blueprint<'_> {
    pub(super) fn sources_sql(&self) -> Vec<SourceSql> {
        self.rule
            .sources
            .iter()
            .enumerate()
            .map(|(i, source)| self.source_sql(i + 1, source))
            .collect()
    }

    pub(super) fn source_sql(&self, n: usize, source: &Source) -> SourceSql {
        let own: Vec<String> = source.columns.iter().map(|c| self.own(*c)).collect();
        let set = all_set(&own);
        let not_set = any(&own.iter().map(|c| format!("{c} IS NULL")).collect::<Vec<_>>());
        let names: Vec<&str> = source
            .columns
            .iter()
            .filter_map(|c| match self.computed(*c) {
                Some(computed) => Some(computed.name.as_str()),
                None => Some(self.table.column(*c)?.name.as_str()),
            })
            .collect();
        let names = names.join(", ");
        let given = own
            .iter()
            .zip(&source.columns)
            .map(|(sql, column)| self.catalog.text_sql(sql, self.type_of(self.table.oid, *column)))
            .collect::<Vec<_>>()
            .join(", ");
        let given = format!("pg_catalog.concat_ws(', ', {given})");
        let unset = Literal::new(&format!("{names} is NULL")).to_string();
        let Some((last, _)) = source.hops.split_last() else {
            let state = format!("{} || {given}", Literal::new(&format!("{names} gives ")));
            return SourceSql {
                joins: vec![],
                missing: "false".into(),
                value: self.as_target_string(own[0].clone(), self.table.oid, source.columns[0]),
                ambiguous: None,
                state: format!("CASE WHEN {set} THEN {state} ELSE {unset} END"),
                set,
                unset: not_set,
                witness: None,
            };
        };
        let label = match self.computed.is_empty() {
            true => source.to_path(self.catalog, self.table).to_string(),
            false => self.catalog.display(self.table_of(source.hops[0].parent)),
        };
        let key = format!("{} || {given}", Literal::new(&format!("{names} = ")));
        let value_name = Literal::new(&format!(": {} is NULL", self.path_end(source))).to_string();
        let no_row = Literal::new(&format!(": {} finds no row", label)).to_string();
        if source.is_unique(self.catalog) {
            let (mut joins, missing) = self.chain(&format!("source_{n}"), "t", &source.columns, source);
            let alias = hop_alias(&format!("source_{n}"), source.hops.len(), source.hops.len());
            let value = format!("{alias}.{}", self.column_sql(last.parent, last.columns[0]));
            let leads_up = last.parent == self.table.oid && last.columns[0] == self.column.number;
            let witness = leads_up.then(|| self.witness(n, &alias, &mut joins));
            let value = match &witness {
                Some(witness) => self.up_the_tree(value, witness),
                None => value,
            };
            let value = self.as_target_string(value, last.parent, last.columns[0]);
            let missing = format!("{set} AND {missing}");
            let state = format!(
                "CASE WHEN {not_set} THEN {unset} WHEN {missing} THEN {key} || {no_row} \
                 WHEN NOT ({value} IS DISTINCT FROM NULL) THEN {key} || {value_name} ELSE {key} || ' gives ' || {} END",
                self.catalog
                    .text_sql(&value, self.type_of(last.parent, last.columns[0]))
            );
            return SourceSql {
                joins,
                set,
                unset: not_set,
                missing,
                value,
                ambiguous: None,
                state,
                witness,
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
        let value = self.as_target_string(value, last.parent, last.columns[0]);
        let select: Vec<String> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| format!("{key} AS key_{}", i + 1))
            .collect();
        let on: Vec<String> = own
            .iter()
            .zip(&first.key)
            .enumerate()
            .map(|(i, (own, key))| {
                let column = self.table.column(source.columns[i]);
                self.same_key(&format!("{alias}.key_{}", i + 1), first.parent, *key, own, column)
            })
            .collect();
        let from = self.overlays.relation_sql(self.table_of(first.parent));
        let join = format!(
            "LEFT JOIN (\n  SELECT {},\n    pg_catalog.array_agg(DISTINCT {value}) FILTER (WHERE {value} IS DISTINCT FROM NULL) AS given,\n    \
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
            witness: None,
        }
    }

    /// What the row above gives. A row that is its own parent is no witness for itself. Where the rule overwrites, a row that
    /// its own sources contradict says nothing until it is put right.
    fn up_the_tree(&self, value: String, witness: &Witness) -> String {
        let mut trusted = vec![format!("NOT ({})", self.same_row(&witness.alias, "ctid", "tableoid"))];
        if self.overwrites() && !witness.values.is_empty() {
            let said = format!("COALESCE({})", witness.values.join(", "));
            let contradicted = differs(self.catalog, &value, self.column.type_oid, &said);
            trusted.push(format!("({contradicted}) IS NOT TRUE"));
        }
        format!("CASE WHEN {} THEN {value} END", trusted.join(" AND "))
    }

    /// Joins the sources of the row `alias` of the target table, those of unique keys.
    fn witness(&self, n: usize, alias: &str, joins: &mut Vec<String>) -> Witness {
        let mut values = Vec::new();
        let others = self.rule.sources.iter().enumerate();
        for (i, source) in others.filter(|(_, source)| !self.feeds(source) && source.is_unique(self.catalog)) {
            let prefix = format!("witness_{n}_{}", i + 1);
            let value = match source.hops.last() {
                Some(last) => {
                    joins.extend(self.chain(&prefix, alias, &source.columns, source).0);
                    let end = hop_alias(&prefix, source.hops.len(), source.hops.len());
                    let value = format!("{end}.{}", self.column_sql(last.parent, last.columns[0]));
                    self.as_target_string(value, last.parent, last.columns[0])
                }
                None => {
                    let value = format!("{alias}.{}", self.column_sql(self.table.oid, source.columns[0]));
                    self.as_target_string(value, self.table.oid, source.columns[0])
                }
            };
            values.push(value);
        }
        Witness {
            alias: alias.to_string(),
            values,
        }
    }

    /// A string in the target's string type, so that it is compared as it will be stored (char(n) ignores trailing
    /// blanks, text does not).
    fn as_target_string(&self, value: String, table: u32, column: i16) -> String {
        let base = |oid| self.catalog.base_type(oid, -1).map(|(base, _)| base);
        let value = match (base(self.type_of(table, column)), base(self.column.type_oid)) {
            (Some(from), Some(to)) if from.is_string() && to.is_string() && from.oid != to.oid => {
                format!("{value}::{}", to.sql())
            }
            _ => value,
        };
        match self.table_of(table).column(column) {
            Some(from) => collated(&value, from, self.column),
            None => value,
        }
    }

    /// LEFT JOINs along a path of unique keys, and the condition that a key on the way finds no row (the first key
    /// being set).
    pub(super) fn chain(&self, prefix: &str, start: &str, columns: &[i16], source: &Source) -> (Vec<String>, String) {
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
    pub(super) fn rest_of_chain(&self, source: &Source) -> (Vec<String>, String) {
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

    pub(super) fn join(&self, alias: &str, parent: u32, key: &[i16], from: &(String, u32, Vec<i16>)) -> String {
        let on = self.on(alias, parent, key, from);
        format!(
            "LEFT JOIN {} AS {alias} ON {}",
            self.overlays.relation_sql(self.table_of(parent)),
            on.join(" AND ")
        )
    }

    /// The conditions of a join: the parent's key equals columns of `from` (alias, table, columns).
    pub(super) fn on(&self, alias: &str, parent: u32, key: &[i16], from: &(String, u32, Vec<i16>)) -> Vec<String> {
        key.iter()
            .zip(&from.2)
            .map(|(key, column)| {
                let value = match from.0 == "t" {
                    true => self.own(*column),
                    false => format!("{}.{}", from.0, self.column_sql(from.1, *column)),
                };
                let column = self.table_of(from.1).column(*column);
                self.same_key(
                    &format!("{alias}.{}", self.column_sql(parent, *key)),
                    parent,
                    *key,
                    &value,
                    column,
                )
            })
            .collect()
    }

    /// `key`, a column of the parent, is what `value` means; `column`: where the value is from, `None` for one that was computed.
    pub(super) fn same_key(&self, key: &str, parent: u32, number: i16, value: &str, column: Option<&Column>) -> String {
        match self.table_of(parent).column(number) {
            Some(of_parent) => same_key(self.catalog, key, of_parent, value, column),
            None => "false".into(),
        }
    }

    pub(super) fn start_table(&self, alias: &str) -> u32 {
        match (alias, &self.reference) {
            ("referenced", Some(reference)) => reference.parent,
            _ => self.table.oid,
        }
    }

    pub(super) fn path_end(&self, source: &Source) -> String {
        let (table, column) = source.value(self.table.oid);
        let table = self.table_of(table);
        format!(
            "{}.{}",
            typed(&table.name),
            table.column(column).map(|c| typed(&c.name)).unwrap_or_default()
        )
    }
}

pub(super) fn hop_alias(prefix: &str, hop: usize, of: usize) -> String {
    if of == 1 {
        prefix.to_string()
    } else {
        format!("{prefix}_{hop}")
    }
}
