//! A random prefix of a random script is run, and the status must say exactly that prefix: each of its steps is there, none of the others.
//! Where two prefixes leave the same catalog (something is made and dropped), either is right. `MEND_CASES` sets the number of cases.

use pgrx_tests::database;
use pgrx_tests::example::{lines, one};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::generate;

/// Everything that the statements of the generator change.
pub const SIGNATURE: &str = "
WITH s AS (SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'mend')), e AS (SELECT objid FROM pg_depend WHERE deptype = 'e')
SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
  SELECT 'schema ' || nspname AS line FROM s
  UNION ALL SELECT concat_ws(' ', 'relation', nspname, relname, relkind, relrowsecurity, relforcerowsecurity,
      coalesce(relacl, acldefault(CAST(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END AS pg_catalog.\"char\"), relowner)), obj_description(c.oid, 'pg_class'), CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
      relowner::regrole, pg_get_partkeydef(c.oid), pg_get_expr(relpartbound, c.oid), (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = c.oid),
      (SELECT q::text FROM (SELECT seqtypid::regtype, seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle FROM pg_sequence WHERE seqrelid = c.oid) q),
      (SELECT concat_ws(' ', refobjid::regclass, refobjsubid) FROM pg_depend WHERE objid = c.oid AND relkind = 'S' AND refclassid = 'pg_class'::regclass AND deptype = 'a'))
    FROM pg_class c JOIN s ON s.oid = relnamespace WHERE c.oid NOT IN (SELECT objid FROM e)
  UNION ALL SELECT concat_ws(' ', 'column', attrelid::regclass, attname, format_type(atttypid, atttypmod), attcollation, attnotnull, attidentity, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
    FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN s ON s.oid = relnamespace LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
    WHERE attnum > 0 AND NOT attisdropped
  UNION ALL SELECT concat_ws(' ', 'constraint', conrelid::regclass, contypid::regtype, conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k JOIN s ON s.oid = connamespace
  UNION ALL SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN s ON s.oid = relnamespace
  UNION ALL SELECT concat_ws(' ', 'trigger', tgenabled, pg_get_triggerdef(g.oid)) FROM pg_trigger g JOIN pg_class c ON c.oid = tgrelid JOIN s ON s.oid = relnamespace WHERE NOT tgisinternal
  UNION ALL SELECT concat_ws(' ', 'policy', polrelid::regclass, polname, polcmd, polroles::regrole[], pg_get_expr(polqual, polrelid)) FROM pg_policy
  UNION ALL SELECT concat_ws(' ', 'type', typname, typnotnull, typdefault, format_type(typbasetype, typtypmod), typcollation, obj_description(t.oid, 'pg_type'), (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid)) FROM pg_type t JOIN s ON s.oid = typnamespace
  UNION ALL SELECT concat_ws(' ', 'function', p.oid::regprocedure, pg_get_functiondef(p.oid)) FROM pg_proc p JOIN s ON s.oid = pronamespace WHERE p.oid NOT IN (SELECT objid FROM e)
) AS all_of_it";

/// A script as text, with comments and odd white space between the statements.
pub fn text(statements: &[String]) -> String {
    statements
        .iter()
        .enumerate()
        .map(|(i, statement)| format!("-- {i}; ' \"\n{statement} ;\n/* ; */ "))
        .collect()
}

fn call(client: &mut Client, script: &str) -> Vec<String> {
    let quoted = format!("$mend${script}$mend$");
    lines(
        client,
        &format!("SELECT coalesce(step, 0), state, kind, object, detail FROM migration_status({quoted})"),
    )
}

fn rehearse(client: &mut Client, script: &str) -> Vec<String> {
    lines(
        client,
        &format!("SELECT sqlstate FROM migration_rehearse($mend${script}$mend$)"),
    )
}

fn one_case(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let length = random.random_range(3..40);
    let statements = generate::script(&mut random, length);
    let database = database();
    let mut client = database.connect();
    let prefix = random.random_range(0..=statements.len());
    let script = text(&statements);
    let mut signatures = vec![one(&mut client, SIGNATURE)];
    let mut reported = vec![];
    let mut rehearsed = vec![];
    for at in 0..=statements.len() {
        if at == prefix {
            reported = call(&mut client, &script);
            rehearsed = rehearse(&mut client, &script);
            assert_eq!(
                one(&mut client, SIGNATURE),
                signatures[at],
                "case {seed}: the rehearsal left something behind"
            );
        }
        if let Some(statement) = statements.get(at) {
            client
                .batch_execute(statement)
                .unwrap_or_else(|error| panic!("case {seed}, {statement}: {error}"));
            signatures.push(one(&mut client, SIGNATURE));
        }
    }
    let shown = || -> String {
        let all = statements.iter().zip(&reported).enumerate();
        let lines: Vec<String> = all
            .map(|(i, (statement, line))| format!("{}{line}\n      {statement}", if i < prefix { "* " } else { "  " }))
            .collect();
        format!(
            "case {seed}, {prefix} of {}\n{}\n{}",
            statements.len(),
            lines.join("\n"),
            reported.last().unwrap()
        )
    };
    assert_eq!(reported.len(), statements.len() + 1, "{}", shown());
    let state = |line: &String| line.split('|').nth(1).unwrap().to_string();
    // What is there, then what looks the same whether it was run or not, then what is missing.
    let (done, unknown) = (["present", "would_fail"], ["unknown"]);
    let missing = ["missing", "blocked"];
    let states: Vec<String> = reported[..statements.len()].iter().map(state).collect();
    let run_of = |from: usize, of: &[&str]| states[from..].iter().take_while(|s| of.contains(&s.as_str())).count();
    let said = run_of(0, &done);
    let most = said + run_of(said, &unknown);
    assert_eq!(
        most + run_of(most, &missing),
        statements.len(),
        "no prefix: {}",
        shown()
    );
    for said in [said, most] {
        assert_eq!(
            signatures[said],
            signatures[prefix],
            "{said} instead of {prefix}: {}",
            shown()
        );
    }
    // What the status says of running it again is what the rehearsal sees.
    assert_eq!(rehearsed.len(), statements.len() + 1);
    for (line, rehearsed) in reported.iter().zip(&rehearsed).take(statements.len()) {
        let raised = match state(line).as_str() {
            "would_fail" | "unknown" if line.contains("raises ") => {
                line.split("raises ").nth(1).unwrap().split(";").next().unwrap()
            }
            _ => "-",
        };
        assert_eq!(rehearsed, raised, "{line}\n{}", shown());
    }
    let sum = state(reported.last().unwrap());
    match (said, most) {
        (0, most) if most == statements.len() => assert_eq!(sum, "unknown", "{}", shown()),
        (0, _) => assert_eq!(sum, "not started", "{}", shown()),
        (_, most) if most == statements.len() => assert!(sum.starts_with("complete"), "{}", shown()),
        _ => assert_eq!(sum, "partial", "{}", shown()),
    }
}

/// After a prefix was run, the reset gives back the catalog from before.
fn reset_case(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let length = random.random_range(3..40);
    let statements = generate::script(&mut random, length);
    let database = database();
    let mut client = database.connect();
    let before = one(&mut client, SIGNATURE);
    let prefix = random.random_range(0..=statements.len());
    for statement in &statements[..prefix] {
        client.batch_execute(statement).unwrap();
    }
    let script = text(&statements);
    let there = one(&mut client, SIGNATURE);
    let reset = |client: &mut Client, rest: &str| {
        lines(
            client,
            &format!("SELECT action, object, statement, reason FROM migration_reset($mend${script}$mend${rest})"),
        )
    };
    let dry = reset(&mut client, "");
    assert_eq!(
        one(&mut client, SIGNATURE),
        there,
        "case {seed}: the dry run changed something"
    );
    // What OR REPLACE replaced is not known; here it is.
    let replaced: Vec<String> = dry
        .iter()
        .filter(|line| line.starts_with("keep|") && line.contains("|OR REPLACE"))
        .map(|line| format!("$n${}$n$", line.split('|').nth(1).unwrap()))
        .collect();
    let include = match replaced.is_empty() {
        true => String::new(),
        false => format!(", include => ARRAY[{}]", replaced.join(", ")),
    };
    let shown = format!("case {seed}, {prefix} of\n{}", statements.join("\n"));
    let dry = reset(&mut client, &include);
    assert!(
        !dry.iter().any(|line| line.starts_with("keep|")),
        "{shown}\n{}",
        dry.join("\n")
    );
    let real = reset(&mut client, &format!(", dry_run => false{include}"));
    let objects = |lines: &[String]| -> Vec<String> { lines.iter().map(|l| l.replace("dropped|", "drop|")).collect() };
    assert_eq!(
        objects(&dry)[..dry.len() - 1],
        objects(&real)[..dry.len() - 1],
        "{shown}"
    );
    assert_eq!(one(&mut client, SIGNATURE), before, "{shown}\n{}", real.join("\n"));
    assert!(!real.iter().any(|line| line.contains("CASCADE")));
}

#[test]
fn a_reset_gives_back_what_was_there_before_1() {
    pgrx_tests::cases(40, 0)
        .into_iter()
        .map(|seed| seed + 1000)
        .for_each(reset_case);
}

#[test]
fn a_reset_gives_back_what_was_there_before_2() {
    pgrx_tests::cases(40, 1)
        .into_iter()
        .map(|seed| seed + 1000)
        .for_each(reset_case);
}

#[test]
fn the_status_of_a_prefix_is_that_prefix_1() {
    pgrx_tests::cases(60, 0).into_iter().for_each(one_case);
}

#[test]
fn the_status_of_a_prefix_is_that_prefix_2() {
    pgrx_tests::cases(60, 1).into_iter().for_each(one_case);
}
