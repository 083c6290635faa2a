//! The statements of a run, each made from the classification.

use super::classify::Extra;
use super::expression::{asks_user_code, calls_user_code, differs, indent};
use super::fit::misfit;
use super::kept::keeping;
use super::sources::hop_alias;
use super::{Blueprint, Count, Moment, Statement, Versions};
use crate::catalog::ForeignKey;
use crate::identifier::Literal;
use crate::infer::tenancy::guard::{Guard, TenantPath};
use crate::rule::{Overwrite, Source};

impl Blueprint<'_> {
    /// Counts the rows per outcome, in one row of text: `total`, then sums that carry three outcomes each (see
    /// [`Count::read`]), `unguarded`, and with rows written by the run also `written` and `proved`.
    ///
    /// Not GROUP BY: the planner cannot know how few outcomes there are, and would not use parallel workers for as many
    /// groups as it fears. Not one FILTER per outcome either: each would evaluate the CASE again, and that is most of the
    /// time. `total` is counted by itself, so that the sum can be checked against it.
    pub fn count(&self, moment: Moment) -> Count {
        let outcomes = self.outcomes(moment);
        let mut columns = vec!["pg_catalog.count(*)::pg_catalog.text AS total".to_string()];
        for (n, three) in outcomes.chunks(3).enumerate() {
            let whens: Vec<String> = three
                .iter()
                .enumerate()
                .map(|(i, outcome)| format!("WHEN {} THEN {}", outcome.sql(), Count::WEIGHTS[i]))
                .collect();
            columns.push(format!(
                "COALESCE(pg_catalog.sum(CASE outcome {} END), 0)::pg_catalog.text AS outcomes_{}",
                whens.join(" "),
                n + 1
            ));
        }
        let rest = self
            .rest(moment)
            .into_iter()
            .map(|column| format!("({column})::pg_catalog.text"));
        columns.extend(rest);
        Count {
            statement: self.counting(moment, &columns),
            outcomes,
            replaces: self.overwrites(),
        }
    }

    /// The same numbers, one bigint column each: for people, and for tables of 2^31 rows and more.
    pub fn count_plainly(&self, moment: Moment) -> Count {
        let outcomes = self.outcomes(moment);
        let mut columns = vec!["pg_catalog.count(*) AS total".to_string()];
        columns.extend(outcomes.iter().enumerate().map(|(i, outcome)| {
            format!(
                "pg_catalog.count(*) FILTER (WHERE outcome = {}) AS outcome_{}",
                outcome.sql(),
                i + 1
            )
        }));
        columns.extend(self.rest(moment));
        Count {
            statement: self.counting(moment, &columns),
            outcomes,
            replaces: self.overwrites(),
        }
    }

    /// What is counted besides the outcomes.
    fn rest(&self, moment: Moment) -> Vec<String> {
        let counted = |condition: &str| format!("pg_catalog.count(*) FILTER (WHERE {condition})");
        let mut columns = vec![counted("unguarded AND outcome = 'filled'")];
        if self.overwrites() {
            columns.push(counted("replaces AND outcome = 'filled'"));
        }
        if moment.has_written() {
            columns.push(counted("written"));
            columns.push(counted("written AND agrees AND outcome = 'filled'"));
        }
        columns
    }

    fn counting(&self, moment: Moment, columns: &[String]) -> Statement {
        // The planner would write the outcome's CASE into every aggregate. That is cheap, and lets it use parallel
        // workers, unless the CASE asks CHECK constraints: OFFSET 0 makes it evaluate those once per row.
        let asks_checks = !self.details.checks.is_empty() || !self.details.domain_checks.is_empty();
        let once = if asks_checks { "\n  OFFSET 0" } else { "" };
        self.statement(self.overlays.before(Statement::new(format!(
            "SELECT\n  {}\nFROM (\n{}{once}\n) AS classified",
            columns.join(",\n  "),
            indent(&self.classification(moment, Extra::None), 2)
        ))))
    }

    /// The target for a message: `"WaitlistEntry".party_id`.
    pub fn target_shown(&self) -> String {
        format!("{}.{}", self.catalog.display(self.table), self.column.quoted)
    }

    /// The rule may replace values that are there.
    pub fn overwrites(&self) -> bool {
        self.rule.overwrite == Overwrite::Mismatched
    }

    /// Writes the value of every row whose outcome is `filled`, and whose column still is NULL (where the rule overwrites:
    /// still has the value that was read).
    ///
    /// Where the classification needs nothing but parents that every filled row has, they are joined straight to the
    /// target, as one would write it by hand. Postgres then judges a row that somebody else changed meanwhile anew, in its
    /// new contents. Otherwise the target is joined with its own classification by ctid: a changed row has a new ctid, so it
    /// is passed over, never written with a value derived from its old contents, and the next pass sees it. (Some minor
    /// versions do not look at the ctid again in a nested loop over TIDs; the condition on the column and the proof do
    /// not rely on it.)
    ///
    /// * `versions`: the rows that are written; all are judged.
    pub fn write(&self, versions: &Versions) -> Statement {
        let moment = Moment::During;
        if let Some(direct) = self.write_directly(moment).filter(|_| *versions == Versions::All) {
            return self.statement(direct);
        }
        let target = format!("t.{}", self.column.sql());
        let (extra, unchanged) = match self.overwrites() {
            true => {
                let same = self.equal(&target, self.column.type_oid, "classified.old_value");
                (
                    Extra::Replaced,
                    format!(
                        "({same} OR {} AND {})",
                        self.is_null(&target),
                        self.is_null("classified.old_value")
                    ),
                )
            }
            false => (Extra::Row, self.is_null(&target)),
        };
        let update = Statement::new(format!(
            "UPDATE {} AS t\nSET {} = classified.value{}\nFROM (\n{}\n) AS classified",
            self.table.relation_sql(),
            self.column.sql(),
            self.write_cast(),
            indent(&self.classification(moment, extra), 2),
        ));
        let update = update
            .filter("classified.outcome = 'filled'")
            .filter(self.same_row("classified", "row_ctid", "row_table"))
            .filter(unchanged)
            .filters(versions.condition("t"));
        self.statement(update)
    }

    /// As [`Self::write`] where the rule overwrites, keeping the old values (see [`keeping`]). Its numbers: the rows written, and those of
    /// them that had another value.
    ///
    /// `write`: the statement of [`Self::write`], complete.
    pub fn keeping_old_values(&self, write: Statement) -> Statement {
        let text = |value: &str| self.catalog.text_sql(value, self.column.type_oid);
        let parameters = write.parameters().to_vec();
        let write = write.ending(format!(
            "RETURNING classified.key AS key, {} AS old_value, {} AS new_value",
            text("classified.old_value"),
            text(&format!("t.{}", self.column.sql())),
        ));
        let name = Literal::new(&self.column.name);
        let pair = |value: &str| format!("pg_catalog.jsonb_build_object({name}, {value})::pg_catalog.text");
        keeping(
            vec![write.as_query("written")],
            &[
                "(SELECT pg_catalog.count(*) FROM written)",
                "(SELECT pg_catalog.count(old_value) FROM written)",
            ],
            &[
                ("row_key", "key::pg_catalog.text"),
                ("old_values", &pair("old_value")),
                ("new_values", &pair("new_value")),
            ],
            "written",
            Some("old_value IS NOT NULL"),
        )
        .with_parameters(parameters)
    }

    /// How many rows are right and how many are not, without a word on why: `total`, `populated` and `disagrees` (set, and not what
    /// the first source that gives a value says), in one row.
    pub fn coverage(&self) -> Statement {
        let sources = self.sources_sql();
        let target = format!("t.{}", self.column.sql());
        let mut from = vec![format!("FROM {} AS t", self.overlays.relation_sql(self.table))];
        from.extend(sources.iter().flat_map(|s| s.joins.iter().cloned()));
        let values: Vec<&str> = sources.iter().map(|s| s.value.as_str()).collect();
        let disagrees = match values.as_slice() {
            [] => "NULL::pg_catalog.int8".into(),
            some => format!(
                "pg_catalog.count(*) FILTER (WHERE {})",
                differs(
                    self.catalog,
                    &target,
                    self.column.type_oid,
                    &format!("COALESCE({})", some.join(", "))
                )
            ),
        };
        self.statement(Statement::new(format!(
            "SELECT\n  pg_catalog.count(*) AS total,\n  pg_catalog.count({target}) AS populated,\n  {disagrees} AS disagrees\n{}",
            from.join("\n")
        )))
    }

    /// One source with unique keys, the row's tenant in the row itself, no other parent that hangs on the row, no unique
    /// index to ask, and not the table itself as its own parent.
    fn write_directly(&self, moment: Moment) -> Option<Statement> {
        let [source] = self.rule.sources.as_slice() else {
            return None;
        };
        let (first, rest) = source.hops.split_first()?;
        let own_tenant = match &self.guard {
            Guard::By(guard) => guard.row.hops.is_empty(),
            Guard::Off | Guard::TenantItself | Guard::Unguarded(_) => true,
        };
        let simple = !self.overwrites()
            && source.is_unique(self.catalog)
            && source.hops.iter().all(|hop| hop.parent != self.table.oid)
            && own_tenant
            && self.restriction.as_ref().is_none_or(|path| path.hops.is_empty())
            && self.details.unique_indexes.is_empty()
            && self.foreign_keys().all(|key| self.is_reference(key))
            && self.touched_sql().is_none();
        if !simple {
            return None;
        }
        let sources = self.sources_sql();
        let alias = hop_alias("source_1", 1, source.hops.len());
        let mut from = vec![format!(
            "FROM {} AS {alias}",
            self.overlays.relation_sql(self.table_of(first.parent))
        )];
        from.extend(
            sources
                .iter()
                .flat_map(|s| s.joins.iter().skip(1).cloned())
                .take(rest.len()),
        );
        from.push(format!(
            "CROSS JOIN LATERAL (SELECT {} AS value) AS found",
            sources[0].value
        ));
        from.extend(self.reference_join());
        from.extend(self.owner_joins());
        let mut conditions = self.on(&alias, first.parent, &first.key, &self.target_operands(&source.start));
        conditions.push(self.is_null(&format!("t.{}", self.column.sql())));
        conditions.extend(self.rows.condition(self.catalog, self.table, "t"));
        conditions.push(format!("{} = 'filled'", self.outcome_sql(moment, &sources)));
        let update = Statement::new(format!(
            "UPDATE {} AS t\nSET {} = found.value{}\n{}",
            self.table.relation_sql(),
            self.column.sql(),
            self.write_cast(),
            from.join("\n"),
        ));
        Some(update.filters(conditions))
    }

    /// Puts right what the run itself wrote and what its sources no longer say (they changed while it wrote): the value
    /// that they give now, or NULL again.
    pub fn correct(&self) -> Statement {
        let update = Statement::new(format!(
            "UPDATE {} AS t\nSET {} = CASE WHEN classified.outcome = 'filled' THEN classified.value{} END\nFROM (\n{}\n) AS classified",
            self.table.relation_sql(),
            self.column.sql(),
            self.write_cast(),
            indent(&self.classification(Moment::After, Extra::Row), 2),
        ));
        let update = update
            .filter("classified.written AND (classified.outcome <> 'filled' OR classified.agrees IS NOT TRUE)")
            .filter(self.same_row("classified", "row_ctid", "row_table"));
        self.statement(update)
    }

    /// The rows that stay empty: `key jsonb, reason text, detail text`, excluded ones last, at most `limit`.
    ///
    /// * `moment`: [`Moment::Before`], or [`Moment::Levels`] where the run settles in levels and they are in the overlay.
    pub fn unfilled(&self, limit: i64, moment: Moment) -> Statement {
        let listed = Statement::new(format!(
            "SELECT key, pg_catalog.split_part(outcome, ': ', 1) AS reason,\n  CASE\n    WHEN outcome LIKE 'constraint_failed: %'\n      \
             THEN pg_catalog.concat_ws('; ', 'refused by ' || pg_catalog.substr(outcome, 20), detail)\n    ELSE detail\n  END AS detail\n\
             FROM (\n{}\n) AS classified",
            indent(&self.classification(moment, Extra::Explained), 2)
        ))
        .filter("outcome NOT IN ('already_set', 'filled')")
        .ending(format!("ORDER BY outcome = 'excluded', outcome, key\nLIMIT {limit}"));
        let listed = self.overlays.before(listed).sql();
        self.statement(Statement::new(format!(
            "SELECT key, reason, detail\nFROM (\n{listed}\n) AS listed"
        )))
    }

    /// The table as it would be after this run, or after one more level of it, to stand in for it in what follows of a dry
    /// run. Besides the table's columns it has `mend_written` (this run wrote the row), `mend_touched` (it was written
    /// in this transaction, by this or an earlier run), and where the rule overwrites `mend_replaced` (it had another value).
    ///
    /// * `moment`: [`Moment::Before`] for the first level, [`Moment::Levels`] for those that see it.
    pub fn after(&self, moment: Moment) -> String {
        let mut columns = vec!["classified.row_ctid AS ctid".to_string()];
        if self.rows_need_table() {
            columns.push("classified.row_table AS tableoid".into());
        }
        let filled = "classified.outcome = 'filled'";
        columns.push(format!("{filled} AS mend_written"));
        columns.push(format!("{filled} OR classified.touched AS mend_touched"));
        if self.overwrites() {
            columns.push(format!("{filled} AND classified.replaces AS mend_replaced"));
        }
        columns.extend(self.table.columns.iter().map(|c| {
            if c.number == self.column.number {
                format!(
                    "CASE WHEN {filled} THEN {} ELSE classified.column_{} END AS {}",
                    self.cast_to_column("classified.value"),
                    c.number,
                    c.sql()
                )
            } else {
                format!("classified.column_{} AS {}", c.number, c.sql())
            }
        }));
        let classification = self.classification(moment, Extra::Columns);
        // The planner would write the outcome into each column that uses it, and do so again at every level.
        let once = if self.overlays.are_in(&classification) {
            "\n  OFFSET 0"
        } else {
            ""
        };
        format!(
            "SELECT\n  {}\nFROM (\n{}{once}\n) AS classified",
            columns.join(",\n  "),
            indent(&classification, 2)
        )
    }

    /// Does a source lead through the target column itself?
    pub fn feeds_itself(&self) -> bool {
        self.rule.sources.iter().any(|source| self.feeds(source))
    }

    /// Does this one?
    pub(super) fn feeds(&self, source: &Source) -> bool {
        source.reads(self.table.oid, self.column.number)
    }

    /// Could a second pass find more than the first? Also where a value that is replaced makes room under a unique index.
    pub fn settles_in_levels(&self) -> bool {
        self.feeds_itself() || self.overwrites() && !self.details.unique_indexes.is_empty()
    }

    /// The classification of this blueprint calls functions or operators that are not Postgres's own (in a CHECK, an index, the
    /// caller's condition), whose bodies may rely on the caller's search_path.
    pub fn asks_user_code(&self) -> bool {
        let condition = self.rule.only_where.iter().map(|condition| &condition.qualified);
        let computed = self.expressions().map(|expression| &expression.sql);
        asks_user_code(&self.details) || condition.chain(computed).any(|text| calls_user_code(text))
    }

    /// The target's row is the one that `other` shows in these columns.
    pub(super) fn same_row(&self, other: &str, ctid: &str, table: &str) -> String {
        let same_table = match self.rows_need_table() {
            true => format!("t.tableoid = {other}.{table} AND "),
            false => String::new(),
        };
        format!("{same_table}t.ctid = {other}.{ctid}")
    }

    /// `statement`, into which the classification is built, with the parameters that it names.
    pub fn statement(&self, statement: Statement) -> Statement {
        // Also where only a stand-in for another table names it.
        let names_tenant = || self.restriction.is_some() || self.overlays.are_in(&statement.sql());
        match self.rule.tenant.clone().filter(|_| names_tenant()) {
            Some(tenant) => statement.with_parameters(vec![tenant]),
            None => statement,
        }
    }

    /// Enforced foreign keys that change with the target column.
    pub(super) fn foreign_keys(&self) -> impl Iterator<Item = &ForeignKey> {
        self.catalog
            .foreign_keys_of(self.table.oid)
            .filter(|key| key.enforced && self.changes(key))
    }

    /// Does the key contain the target column, or one that is computed and may be computed from it?
    pub(super) fn changes(&self, key: &ForeignKey) -> bool {
        let generated = |n: &i16| self.table.column(*n).is_some_and(|c| c.generated);
        key.columns.iter().any(|n| *n == self.column.number || generated(n))
    }

    /// Is this foreign key the one whose parent row is joined as `referenced` anyway?
    pub(super) fn is_reference(&self, key: &ForeignKey) -> bool {
        self.reference
            .as_ref()
            .is_some_and(|r| key.columns.len() == 1 && key.parent == r.parent && key.parent_columns[0] == r.key)
    }

    /// The value in the target's base type; NULL where the type refuses it, because there the cast would raise.
    pub(super) fn value_as_target(&self) -> String {
        self.as_target("found.value")
    }

    pub(super) fn as_target(&self, value: &str) -> String {
        let cast = self.cast_to_column(value);
        match self.type_limit(value) {
            Some((_, refused)) => format!("CASE WHEN NOT ({refused}) THEN {cast} END"),
            None => cast,
        }
    }

    fn cast_to_column(&self, value: &str) -> String {
        if self.sources_have_target_type() {
            value.to_string()
        } else {
            format!("{value}::{}", self.value_type_sql())
        }
    }

    /// The base type of the target column, as SQL.
    pub(super) fn value_type_sql(&self) -> String {
        let base = self.catalog.base_type(self.column.type_oid, self.column.type_modifier);
        base.map(|(base, _)| base.sql())
            .unwrap_or_else(|| "pg_catalog.text".into())
    }

    fn sources_have_target_type(&self) -> bool {
        let Some((target, _)) = self.catalog.base_type(self.column.type_oid, -1) else {
            return false;
        };
        self.rule.sources.iter().all(|source| {
            let base = self.catalog.base_type(self.value_type(source), -1);
            base.is_some_and(|(base, _)| base.oid == target.oid || base.is_string() && target.is_string())
        })
    }

    /// An explicit cast where assignment would need more than Postgres does by itself.
    fn write_cast(&self) -> String {
        if self.sources_have_target_type() {
            String::new()
        } else {
            format!("::{}", self.value_type_sql())
        }
    }

    /// The condition under which the column's type itself refuses the value (too long, out of range), and its name.
    pub(super) fn type_limit(&self, value: &str) -> Option<(String, String)> {
        let (target, modifier) = self
            .catalog
            .base_type(self.column.type_oid, self.column.type_modifier)?;
        let sources = || {
            self.rule
                .sources
                .iter()
                .filter_map(|source| match source.value(self.table.oid) {
                    Some((table, column)) => {
                        let column = self.table_of(table).column(column)?;
                        self.catalog.base_type(column.type_oid, column.type_modifier)
                    }
                    None => self.catalog.base_type(self.value_type(source), -1),
                })
        };
        let named = |refuses: bool| {
            misfit(target, modifier, value)
                .filter(|_| refuses)
                .map(|(sql, name)| (name, sql))
        };
        if target.is_string() && modifier > 4 {
            let fits = |(source, length): (&crate::catalog::Type, i32)| {
                source.name == target.name && length > 4 && length <= modifier
            };
            return named(!sources().all(fits));
        }
        let (least, greatest) = target.integer_range()?;
        let fits = |(source, _): (&crate::catalog::Type, i32)| {
            source.integer_range().is_some_and(|(a, b)| a >= least && b <= greatest)
        };
        named(!sources().all(fits))
    }
}

/// Tables and columns that the classification reads, for checking privileges.
impl Blueprint<'_> {
    /// Each table once, with the columns read of it.
    pub fn reads(&self) -> Vec<(u32, Vec<i16>)> {
        let mut reads: Vec<(u32, Vec<i16>)> = Vec::new();
        let mut add = |table: u32, columns: &[i16]| match reads.iter_mut().find(|(t, _)| *t == table) {
            Some((_, known)) => known.extend(columns),
            None => reads.push((table, columns.to_vec())),
        };
        let target = self.table.oid;
        add(target, &[self.column.number]);
        for source in &self.rule.sources {
            add(target, &source.columns());
            for hop in &source.hops {
                add(hop.parent, &hop.key);
                add(hop.parent, &hop.columns);
            }
        }
        for check in &self.details.checks {
            add(target, &check.columns);
        }
        if self
            .details
            .unique_indexes
            .iter()
            .any(|index| index.predicate.is_some() || index.expressions.len() > 1)
            || !self.details.generated.is_empty()
        {
            add(target, &self.table.columns.iter().map(|c| c.number).collect::<Vec<_>>());
        }
        for key in self.foreign_keys() {
            add(target, &key.columns);
            add(key.parent, &key.parent_columns);
        }
        if let Some(reference) = self.reference.as_ref().filter(|_| self.reference_join().is_some()) {
            add(reference.parent, &[reference.key]);
        }
        let mut paths = Vec::new();
        if let Guard::By(guard) = &self.guard {
            paths.extend([&guard.row, &guard.value]);
        }
        paths.extend(&self.restriction);
        let others: Vec<&TenantPath> = paths.iter().flat_map(|path| &path.otherwise).collect();
        paths.extend(others);
        for path in paths {
            add(path.table, &path.columns);
            for hop in &path.hops {
                add(hop.parent, &hop.key);
                add(hop.parent, &hop.columns);
            }
        }
        reads
    }
}
