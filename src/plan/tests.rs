//! What the statements look like, without a server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::classify::Extra;
use super::fill::{FILL, fill};
use super::program::{Progress, Step, Verdict};
use super::refusal::ChangedRow;
use super::{Blueprint, Moment, Overlays, Reason, RowSet, Versions};
use crate::catalog::testing::Builder;
use crate::catalog::{Catalog, Check, Details, UniqueIndex};
use crate::infer::tenancy::guard as tenant;
use crate::infer::tenancy::guard::Guard;
use crate::infer::{reference, sources};
use crate::rule::{OnConflict, Overwrite, Rule};
use crate::settings::CallersSettings;

fn catalog() -> Catalog {
    Builder::new()
        .table("Tenant", &["id"])
        .table("Party", &["id", "tenantId"])
        .references("Party", "tenantId", "Tenant")
        .table("Contact", &["id", "partyId?"])
        .references("Contact", "partyId", "Party")
        .table("Entry", &["id", "tenantId", "contactId?", "partyId?"])
        .references("Entry", "tenantId", "Tenant")
        .references("Entry", "contactId", "Contact")
        .references("Entry", "partyId", "Party")
        .build()
}

fn blueprint(catalog: &Catalog, details: Details) -> Blueprint<'_> {
    let table = catalog.resolve_table("Entry").unwrap();
    let column = table.column_named("partyId").unwrap();
    let inferred = sources::infer(catalog, table, column).unwrap();
    let party = catalog.resolve_table("Party").unwrap();
    Blueprint {
        catalog,
        table,
        column,
        rule: Rule {
            table: table.oid,
            column: column.number,
            sources: inferred.sources,
            on_conflict: OnConflict::Skip,
            only_where: None,
            overwrite: Overwrite::Nothing,
            tenant_guard: true,
            tenant: None,
        },
        details,
        reference: reference::declared(catalog, table, column),
        refuse_dangling: true,
        guard: tenant::guard(catalog, table, party, None, column.number, &[]).unwrap(),
        restriction: None,
        rows: RowSet::All,
        overlays: Overlays::default(),
        touched: vec![],
        written_as: vec![],
        further: vec![],
        reader: None,
    }
}

#[test]
fn a_write_from_one_source_reads_as_by_hand() {
    let catalog = catalog();
    assert_eq!(
        blueprint(&catalog, Details::default()).write(&Versions::All).sql(),
        r#"UPDATE public."Entry" AS t
SET "partyId" = found.value
FROM public."Contact" AS source_1
CROSS JOIN LATERAL (SELECT source_1."partyId" AS value) AS found
LEFT JOIN public."Party" AS referenced ON referenced.id = found.value
WHERE source_1.id = t."contactId"
  AND t."partyId" IS NULL
  AND CASE
    WHEN t."partyId" IS NOT NULL THEN 'already_set'
    WHEN t."contactId" IS NULL THEN 'no_source'
    WHEN found.value IS NULL AND (t."contactId" IS NOT NULL AND source_1.id IS NULL) THEN 'source_missing'
    WHEN found.value IS NULL THEN 'source_null'
    WHEN t."tenantId" <> referenced."tenantId" THEN 'cross_tenant'
    WHEN referenced.id IS NULL THEN 'constraint_failed: Entry_partyId_fkey'
    ELSE 'filled'
  END = 'filled'"#
    );
}

#[test]
fn any_other_write_joins_the_target_with_its_own_classification() {
    let catalog = catalog();
    let mut blueprint = blueprint(&catalog, Details::default());
    blueprint.rule.sources.push(blueprint.rule.sources[0].clone());
    assert_eq!(
        blueprint.write(&Versions::All).sql(),
        r#"UPDATE public."Entry" AS t
SET "partyId" = classified.value
FROM (
  SELECT
    t.ctid AS row_ctid,
    CASE
      WHEN t."partyId" IS NOT NULL THEN 'already_set'
      WHEN t."contactId" IS NULL AND t."contactId" IS NULL THEN 'no_source'
      WHEN found.value IS NULL AND ((t."contactId" IS NOT NULL AND source_1.id IS NULL) OR (t."contactId" IS NOT NULL AND source_2.id IS NULL)) THEN 'source_missing'
      WHEN found.value IS NULL THEN 'source_null'
      WHEN source_2."partyId" <> found.value THEN 'conflict'
      WHEN t."tenantId" <> referenced."tenantId" THEN 'cross_tenant'
      WHEN referenced.id IS NULL THEN 'constraint_failed: Entry_partyId_fkey'
      ELSE 'filled'
    END AS outcome,
    found.value AS value,
    (t."tenantId" IS NULL OR referenced."tenantId" IS NULL) AS unguarded
  FROM public."Entry" AS t
  LEFT JOIN public."Contact" AS source_1 ON source_1.id = t."contactId"
  LEFT JOIN public."Contact" AS source_2 ON source_2.id = t."contactId"
  CROSS JOIN LATERAL (SELECT COALESCE(source_1."partyId", source_2."partyId") AS value) AS found
  LEFT JOIN public."Party" AS referenced ON referenced.id = found.value
  WHERE t."partyId" IS NULL
) AS classified
WHERE classified.outcome = 'filled'
  AND t.ctid = classified.row_ctid
  AND t."partyId" IS NULL"#
    );
}

#[test]
fn the_count_has_one_column_for_each_outcome_that_can_be() {
    let catalog = catalog();
    let details = Details {
        checks: vec![Check {
            name: "it's odd".into(),
            expression: "\"partyId\" % 2 = 1".into(),
            columns: vec![4],
        }],
        unique_indexes: vec![UniqueIndex {
            name: "one".into(),
            expressions: vec!["\"partyId\"".into()],
            types: vec![23],
            ..UniqueIndex::default()
        }],
        ..Details::default()
    };
    let mut blueprint = blueprint(&catalog, details);
    let outcomes = blueprint.count(Moment::Before).outcomes;
    assert_eq!(
        outcomes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "already_set",
            "no_source",
            "source_missing",
            "source_null",
            "cross_tenant",
            "constraint_failed: it's odd",
            "constraint_failed: Entry_partyId_fkey",
            "constraint_failed: one",
            "filled",
        ]
    );
    // Without a guard there is no such outcome, and the parent's tenant is not read.
    blueprint.guard = Guard::Off;
    assert!(!blueprint.count(Moment::Before).outcomes.contains(&Reason::CrossTenant));
    assert!(
        !blueprint
            .classification(Moment::Before, Extra::None)
            .contains("tenantId")
    );
}

#[test]
fn a_proof_judges_what_was_written_as_if_it_were_empty() {
    let catalog = catalog();
    let written = Blueprint {
        written_as: vec![7],
        ..blueprint(&catalog, Details::default())
    };
    let sql = written.classification(Moment::After, Extra::None);
    let written = "(t.xmin = '7'::pg_catalog.xid AND t.\"partyId\" IS NOT NULL)";
    assert!(
        sql.contains(&format!(
            "WHEN NOT {written} AND t.\"partyId\" IS NOT NULL THEN 'already_set'"
        )),
        "{sql}"
    );
    assert!(
        sql.contains(&format!("{written} AS written")) && sql.contains("t.\"partyId\" = found.value AS agrees"),
        "{sql}"
    );
}

#[test]
fn an_overlay_stands_in_for_the_table_from_then_on() {
    let catalog = catalog();
    let mut blueprint = blueprint(&catalog, Details::default());
    blueprint
        .overlays
        .push(catalog.resolve_table("Contact").unwrap(), "SELECT 1".into());
    let sql = blueprint.count(Moment::Before).statement.sql();
    assert!(
        sql.starts_with("WITH after_step_1 AS (\n  SELECT 1\n)\nSELECT"),
        "{sql}"
    );
    assert!(sql.contains("LEFT JOIN after_step_1 AS source_1 ON"), "{sql}");
}

#[test]
fn parameters_become_literals_for_review_only() {
    let catalog = catalog();
    let mut blueprint = blueprint(&catalog, Details::default());
    blueprint.rule.tenant = Some("o'neil".into());
    blueprint.restriction = match &blueprint.guard {
        Guard::By(guard) => Some(guard.row.clone()),
        _ => None,
    };
    let statement = blueprint.write(&Versions::All);
    assert!(
        statement
            .sql()
            .contains("WHEN (t.\"tenantId\" = CAST($1 AS pg_catalog.int4)) IS NOT TRUE THEN 'excluded'")
    );
    assert_eq!(statement.parameters(), ["o'neil"]);
    assert!(statement.for_review().contains("CAST('o''neil' AS pg_catalog.int4)"));
}

#[test]
fn three_outcomes_share_a_sum_and_are_told_apart_again() {
    let catalog = catalog();
    let count = blueprint(&catalog, Details::default()).count(Moment::After);
    assert_eq!(count.outcomes.len(), 7);
    let most = (1_i128 << 31) - 1;
    let columns = [
        42,
        5 + (6 << 31) + (most << 62),
        most + (most << 31) + (1 << 62),
        9,
        4,
        3,
        2,
    ];
    let numbers = count.read(&columns);
    assert_eq!(numbers.outcomes, [5, 6, most as i64, most as i64, most as i64, 1, 9]);
    assert_eq!(
        (numbers.total, numbers.unguarded, numbers.written, numbers.proved),
        (42, 4, 3, 2)
    );
}

#[test]
fn a_set_of_rows_is_a_condition_and_uniqueness_is_judged_over_all() {
    let catalog = catalog();
    let mut plain = blueprint(&catalog, Details::default());
    plain.rows = RowSet::KeyRange {
        columns: vec![1],
        after: Some(vec!["10".into()]),
        up_to: Some(vec!["it's 20".into()]),
    };
    let sql = plain.write(&Versions::All).sql();
    let condition = "(t.id) > ('10'::pg_catalog.int4) AND (t.id) <= ('it''s 20'::pg_catalog.int4)";
    assert!(sql.contains(&format!("\n  AND {condition}\n  AND CASE")), "{sql}");
    let index = UniqueIndex {
        name: "one".into(),
        expressions: vec!["\"partyId\"".into()],
        types: vec![23],
        ..UniqueIndex::default()
    };
    let details = Details {
        unique_indexes: vec![index],
        ..Details::default()
    };
    let unique = Blueprint {
        rows: plain.rows.clone(),
        ..blueprint(&catalog, details)
    };
    let sql = unique.classification(Moment::During, Extra::Row);
    assert!(sql.ends_with(") AS derived\nWHERE derived.in_set"), "{sql}");
    assert!(sql.contains(&format!("({condition}) AS in_set")), "{sql}");
    // A new row is in no table.
    let new = Blueprint {
        rows: RowSet::New("(SELECT (NEW).*)".into()),
        ..blueprint(&catalog, Details::default())
    };
    let sql = new.classification(Moment::Before, Extra::None);
    assert!(
        sql.contains("FROM (SELECT (NEW).*) AS t\n") && !sql.contains("ctid"),
        "{sql}"
    );
}

/// The steps of a backfill, its attempt taken off.
fn steps<'p>(blueprint: &Blueprint<'p>) -> Vec<Step<'p>> {
    match fill(blueprint, &CallersSettings::default(), &[]) {
        Step::Attempt(attempt) => attempt.steps,
        _ => panic!("a backfill is one attempt"),
    }
}

fn shape(steps: &[Step]) -> Vec<&'static str> {
    let mut shape = vec![];
    for step in steps {
        match step {
            Step::Remember => shape.push("remember"),
            Step::Write(_) => shape.push("write"),
            Step::Verify(_) => shape.push("verify"),
            Step::Repeat(repeat) => {
                shape.push("repeat");
                shape.extend(self::shape(&repeat.steps));
            }
            _ => shape.push("other"),
        }
    }
    shape
}

/// What the proof of a backfill comes to, in a word.
fn verdict(blueprint: &Blueprint, progress: &Progress) -> &'static str {
    let steps = steps(blueprint);
    let Some(Step::Repeat(repeat)) = steps.last() else {
        panic!("no repetition")
    };
    let Some(Step::Verify(verify)) = repeat.steps.last() else {
        panic!("no proof")
    };
    match (verify.judge)(progress) {
        Verdict::Proved => "proved",
        Verdict::More => "more",
        Verdict::Stale => "stale",
        Verdict::Contradicted { again: true } => "begun anew",
        Verdict::Contradicted { again: false } => "contradicted",
        Verdict::Refused(_) => "refused",
        Verdict::Anew(_) => "anew",
        Verdict::Wrong(_) => "wrong",
    }
}

#[test]
fn a_backfill_is_a_short_program() {
    let catalog = catalog();
    let plain = blueprint(&catalog, Details::default());
    assert_eq!(shape(&steps(&plain)), ["repeat", "write", "verify"]);
    let triggers = Details {
        triggers: vec!["touches".into()],
        ..Details::default()
    };
    let with_triggers = blueprint(&catalog, triggers);
    assert_eq!(shape(&steps(&with_triggers)), ["remember", "repeat", "write", "verify"]);

    // Rows written, of them right, rows that could be written and are not; how often in a row nothing was.
    let progress = |written: i64, found: i64, proved: i64, left: i64, idle: usize| {
        let mut progress = Progress {
            idle,
            ..Progress::default()
        };
        progress.add(FILL, &[written]);
        progress.found.written = found;
        progress.found.counts.filled = proved;
        progress.found.left = left;
        progress
    };
    assert_eq!(verdict(&plain, &progress(3, 3, 3, 0, 0)), "proved");
    assert_eq!(verdict(&plain, &progress(3, 3, 3, 1, 0)), "more");
    assert_eq!(verdict(&plain, &progress(3, 3, 2, 0, 0)), "stale");
    assert_eq!(verdict(&plain, &progress(4, 3, 3, 0, 0)), "wrong");
    assert_eq!(verdict(&plain, &progress(3, 3, 3, 1, 25)), "wrong");
    // What a trigger may have changed is not put right in place; rows that it keeps from being written stay.
    assert_eq!(verdict(&with_triggers, &progress(3, 3, 2, 0, 0)), "begun anew");
    assert_eq!(verdict(&with_triggers, &progress(3, 3, 3, 2, 2)), "refused");
    let endless = Progress {
        corrections: 25,
        ..progress(3, 3, 2, 0, 0)
    };
    assert_eq!(verdict(&plain, &endless), "contradicted");
}

#[test]
fn a_changed_row_is_refused_by_what_its_table_enforces() {
    let catalog = Builder::new()
        .table("parent", &["id"])
        .table("child", &["id", "a?", "b?"])
        .references("child", "a", "parent")
        .build();
    let child = catalog.resolve_table("child").unwrap();
    let a = child.column_named("a").unwrap();
    let changed = |value: &str| ChangedRow {
        catalog: &catalog,
        table: child,
        generated: &[],
        written: vec![(a, value.to_string())],
    };
    let check = Check {
        name: "odd".into(),
        expression: "a > b".into(),
        columns: vec![2, 3],
    };
    assert_eq!(
        changed("NULL::pg_catalog.int4").checks(&[check], &[]),
        [(
            r#"NOT (SELECT a > b FROM (SELECT NULL::pg_catalog.int4 AS "a", t."b" AS "b") AS new_row)"#.to_string(),
            Reason::refused_by("odd")
        )]
    );
    assert_eq!(
        changed("7").foreign_keys(),
        [(
            r#"(7) IS NOT NULL AND NOT EXISTS (SELECT FROM public."parent" AS p WHERE p.id = (7))"#.to_string(),
            Reason::SourceMissing
        )]
    );
    let index = UniqueIndex {
        name: "one".into(),
        expressions: vec!["a".into(), "b".into()],
        types: vec![23, 23],
        nulls_not_distinct: true,
        ..UniqueIndex::default()
    };
    let (condition, reason) = changed("NULL").collision(&index, &["together".into()]);
    assert_eq!(reason, Reason::refused_by("one"));
    let new =
        |name: &str| format!(r#"((SELECT {name} FROM (SELECT t.id AS id, NULL AS "a", t."b" AS "b") AS new_row))"#);
    let (a, b) = (new("a"), new("b"));
    let together = format!("(pg_catalog.count(*) OVER (PARTITION BY {a}, {b}, together) > 1 OR EXISTS (");
    assert!(condition.starts_with(&together), "{condition}");
    let existing = format!("WHERE (a) IS NOT DISTINCT FROM {a} AND (b) IS NOT DISTINCT FROM {b} AND ");
    assert!(condition.contains(&existing), "{condition}");
}
