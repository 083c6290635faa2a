//! How each source reads: its joins, its value, and what can be said of it when it gives none.

use super::Blueprint;
use super::expression::{all_set, any, differs};
use super::join::{collated, same_key};
use crate::catalog::Column;
use crate::identifier::Literal;
use crate::rule::{Hop, Operand, Source, operands, typed};

/// A row that is there already, and what of it is looked up.
pub(super) struct Joined {
    pub(super) alias: String,
    pub(super) table: u32,
    pub(super) operands: Vec<Operand>,
}

impl Joined {
    pub(super) fn columns(alias: &str, table: u32, columns: &[i16]) -> Joined {
        Joined {
            alias: alias.to_string(),
            table,
            operands: operands(columns),
        }
    }
}

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
        let from = self.target_operands(&source.start);
        let own: Vec<String> = source
            .start
            .iter()
            .map(|operand| self.operand_sql(&from, operand))
            .collect();
        let set = all_set(&own);
        let not_set = any(&own.iter().map(|c| format!("{c} IS NULL")).collect::<Vec<_>>());
        let names: Vec<&str> = source
            .start
            .iter()
            .filter_map(|operand| match operand {
                Operand::Expression(expression) => Some(expression.name.as_str()),
                Operand::Column(number) => Some(self.table.column(*number)?.name.as_str()),
            })
            .collect();
        let names = names.join(", ");
        let given = own
            .iter()
            .zip(&source.start)
            .map(|(sql, operand)| self.catalog.text_sql(sql, self.operand_type(&from, operand)))
            .collect::<Vec<_>>()
            .join(", ");
        let given = format!("pg_catalog.concat_ws(', ', {given})");
        let unset = Literal::new(&format!("{names} is NULL")).to_string();
        let Some((last, _)) = source.hops.split_last() else {
            let state = format!("{} || {given}", Literal::new(&format!("{names} gives ")));
            return SourceSql {
                joins: vec![],
                missing: "false".into(),
                value: self.as_target_string(own[0].clone(), source),
                ambiguous: None,
                state: format!("CASE WHEN {set} THEN {state} ELSE {unset} END"),
                set,
                unset: not_set,
                witness: None,
            };
        };
        let label = match source.is_computed() {
            false => source.to_path(self.catalog, self.table).to_string(),
            true => self.catalog.display(self.table_of(source.hops[0].parent)),
        };
        let key = format!("{} || {given}", Literal::new(&format!("{names} = ")));
        let value_name = Literal::new(&format!(": {} is NULL", self.path_end(source))).to_string();
        let no_row = Literal::new(&format!(": {} finds no row", label)).to_string();
        if source.is_unique(self.catalog) {
            let (mut joins, missing) = self.chain(&format!("source_{n}"), from, &source.hops);
            let alias = hop_alias(&format!("source_{n}"), source.hops.len(), source.hops.len());
            let value = format!("{alias}.{}", self.column_sql(last.parent, last.columns[0]));
            let leads_up = last.parent == self.table.oid && last.columns[0] == self.column.number;
            let witness = leads_up.then(|| self.witness(n, &alias, &mut joins));
            let value = match &witness {
                Some(witness) => self.up_the_tree(value, witness),
                None => value,
            };
            let value = self.as_target_string(value, source);
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
        let value = self.as_target_string(value, source);
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
                let column = self.operand_column(&from, &source.start[i]);
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

    /// What the row above gives. A row that references itself is not used as its own source. Where the rule overwrites, a row that
    /// its own sources contradict says nothing until it is put right.
    fn up_the_tree(&self, value: String, witness: &Witness) -> String {
        let mut trusted = vec![format!("NOT ({})", self.same_row(&witness.alias, "ctid", "tableoid"))];
        if self.overwrites() && !witness.values.is_empty() {
            let values = format!("COALESCE({})", witness.values.join(", "));
            let contradicted = differs(self.catalog, &value, self.column.type_oid, &values);
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
                    let from = Joined {
                        alias: alias.to_string(),
                        table: self.table.oid,
                        operands: source.start.clone(),
                    };
                    joins.extend(self.chain(&prefix, from, &source.hops).0);
                    let end = hop_alias(&prefix, source.hops.len(), source.hops.len());
                    let value = format!("{end}.{}", self.column_sql(last.parent, last.columns[0]));
                    self.as_target_string(value, source)
                }
                None => {
                    let from = Joined::columns(alias, self.table.oid, &source.columns());
                    let value = source.start.first().map(|operand| self.operand_sql(&from, operand));
                    self.as_target_string(value.unwrap_or("NULL".into()), source)
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
    fn as_target_string(&self, value: String, source: &Source) -> String {
        let base = |oid| self.catalog.base_type(oid, -1).map(|(base, _)| base);
        let value = match (base(self.value_type(source)), base(self.column.type_oid)) {
            (Some(from), Some(to)) if from.is_string() && to.is_string() && from.oid != to.oid => {
                format!("{value}::{}", to.sql())
            }
            _ => value,
        };
        let column = source.value(self.table.oid);
        match column.and_then(|(table, column)| self.table_of(table).column(column)) {
            Some(from) => collated(&value, from, self.column),
            None => value,
        }
    }

    /// Operands of a row of the target.
    pub(super) fn target_operands(&self, operands: &[Operand]) -> Joined {
        Joined {
            alias: "t".into(),
            table: self.table.oid,
            operands: operands.to_vec(),
        }
    }

    /// The value of an operand. An expression is one over `t`.
    fn operand_sql(&self, from: &Joined, operand: &Operand) -> String {
        match operand {
            Operand::Column(number) => format!("{}.{}", from.alias, self.column_sql(from.table, *number)),
            Operand::Expression(expression) => expression.sql.clone(),
        }
    }

    fn operand_type(&self, from: &Joined, operand: &Operand) -> u32 {
        match operand {
            Operand::Column(number) => self.type_of(from.table, *number),
            Operand::Expression(expression) => expression.type_oid,
        }
    }

    fn operand_column(&self, from: &Joined, operand: &Operand) -> Option<&Column> {
        self.table_of(from.table).column(operand.column()?)
    }

    /// LEFT JOINs along a path of unique keys, and the condition that a key on the way finds no row (the first key
    /// being set).
    pub(super) fn chain(&self, prefix: &str, start: Joined, hops: &[Hop]) -> (Vec<String>, String) {
        let mut joins = Vec::new();
        let mut missing = Vec::new();
        let mut from = start;
        for (i, hop) in hops.iter().enumerate() {
            let alias = hop_alias(prefix, i + 1, hops.len());
            joins.push(self.join(&alias, hop.parent, &hop.key, &from));
            let not_found = format!("{alias}.{} IS NULL", self.column_sql(hop.parent, hop.key[0]));
            if i == 0 {
                missing.push(not_found);
            } else {
                let set: Vec<String> = from
                    .operands
                    .iter()
                    .map(|operand| self.operand_sql(&from, operand))
                    .collect();
                missing.push(format!("({} AND {not_found})", all_set(&set)));
            }
            from = Joined::columns(&alias, hop.parent, &hop.columns);
        }
        (joins, any(&missing))
    }

    /// As `chain`, from the first parent (`hop_1`) on.
    pub(super) fn rest_of_chain(&self, source: &Source) -> (Vec<String>, String) {
        let mut joins = Vec::new();
        let mut missing = Vec::new();
        for (i, pair) in source.hops.windows(2).enumerate() {
            let (here, next) = (format!("hop_{}", i + 1), format!("hop_{}", i + 2));
            let from = Joined::columns(&here, pair[0].parent, &pair[0].columns);
            joins.push(self.join(&next, pair[1].parent, &pair[1].key, &from));
            let set: Vec<String> = from
                .operands
                .iter()
                .map(|operand| self.operand_sql(&from, operand))
                .collect();
            missing.push(format!(
                "({} AND {next}.{} IS NULL)",
                all_set(&set),
                self.column_sql(pair[1].parent, pair[1].key[0])
            ));
        }
        (joins, any(&missing))
    }

    pub(super) fn join(&self, alias: &str, parent: u32, key: &[i16], from: &Joined) -> String {
        let on = self.on(alias, parent, key, from);
        format!(
            "LEFT JOIN {} AS {alias} ON {}",
            self.overlays.relation_sql(self.table_of(parent)),
            on.join(" AND ")
        )
    }

    /// The conditions of a join: the parent's key equals what `from` looks up.
    pub(super) fn on(&self, alias: &str, parent: u32, key: &[i16], from: &Joined) -> Vec<String> {
        key.iter()
            .zip(&from.operands)
            .map(|(key, operand)| {
                self.same_key(
                    &format!("{alias}.{}", self.column_sql(parent, *key)),
                    parent,
                    *key,
                    &self.operand_sql(from, operand),
                    self.operand_column(from, operand),
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

    pub(super) fn path_end(&self, source: &Source) -> String {
        let Some((table, column)) = source.value(self.table.oid) else {
            return String::new();
        };
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
