//! In-database tests: what needs SPI and can be rolled back. Run with `--features pg_test` against an extension that was
//! installed with the same feature; each test runs in a transaction of its own.

#[pgrx::pg_schema]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use pgrx::prelude::*;
    use std::panic::AssertUnwindSafe;

    use crate::catalog::Catalog;
    use crate::pg::{self, Settings};
    use crate::plan::{Counts, RowSet};
    use crate::problem::Problem;
    use crate::rule::RuleSpec;
    use crate::run::{self, Session};

    fn loaded(setup: &str) -> Session {
        Spi::run(setup).unwrap();
        Session::begin().unwrap()
    }

    fn setting(name: &str) -> String {
        Spi::get_one_with_args::<String>("SELECT pg_catalog.current_setting($1)", &[name.into()])
            .unwrap()
            .unwrap()
    }

    #[pg_test]
    fn the_catalog_knows_columns_types_keys_and_foreign_keys() {
        let session = loaded(
            "CREATE DOMAIN short AS varchar(5) CHECK (VALUE <> '');
             CREATE TYPE mood AS ENUM ('sad', 'glad');
             CREATE TABLE parent (a int, b text, mood mood, UNIQUE (b, a), PRIMARY KEY (a));
             CREATE TABLE child (x int REFERENCES parent ON DELETE CASCADE, name short NOT NULL, gone int,
                                 twice int GENERATED ALWAYS AS (x * 2) STORED);
             CREATE UNIQUE INDEX partial ON child (name) WHERE x > 0;
             ALTER TABLE child DROP COLUMN gone",
        );
        let catalog: &Catalog = &session.catalog;
        let (parent, child) = (
            catalog.resolve_table("parent").unwrap(),
            catalog.resolve_table("child").unwrap(),
        );
        let keys: Vec<_> = parent
            .keys
            .iter()
            .map(|k| (k.name.as_str(), parent.names_of(&k.columns), k.primary))
            .collect();
        assert_eq!(
            keys,
            [
                ("parent_pkey", vec!["a"], true),
                ("parent_b_a_key", vec!["b", "a"], false)
            ]
        );
        assert!(child.keys.is_empty(), "a partial index is no key");
        let names: Vec<_> = child
            .columns
            .iter()
            .map(|c| (c.name.as_str(), c.not_null, c.generated))
            .collect();
        assert_eq!(
            names,
            [("x", false, false), ("name", true, false), ("twice", false, true)]
        );
        let key = catalog.foreign_keys_of(child.oid).next().unwrap();
        assert_eq!((key.parent, key.on_delete, key.validated), (parent.oid, 'c', true));
        let name = child.column_named("name").unwrap();
        let (base, modifier) = catalog.base_type(name.type_oid, name.type_modifier).unwrap();
        assert_eq!((base.name.as_str(), modifier), ("varchar", 9));
        let mood = catalog.type_of(parent.column_named("mood").unwrap().type_oid).unwrap();
        assert_eq!(mood.labels, ["sad", "glad"]);
        let details = catalog.details(child, name).unwrap();
        assert_eq!(details.domain_checks.len(), 1);
        assert_eq!(details.unique_indexes[0].predicate.as_deref(), Some("(x > 0)"));
    }

    #[pg_test]
    fn names_are_shown_like_regclass_shows_them() {
        let session = loaded(
            "CREATE SCHEMA \"Other\"; CREATE TABLE \"Mixed Case\" (id int); CREATE TABLE plain (id int);
             CREATE TABLE \"order\" (id int); CREATE TABLE \"Other\".plain (id int); CREATE TEMPORARY TABLE temp (id int)",
        );
        for table in session
            .catalog
            .tables
            .iter()
            .filter(|t| t.is_table() && !t.of_extension)
        {
            let _path = Settings::push(&session.caller.as_pairs());
            let oid = pg_sys::Oid::from(table.oid);
            let regclass = Spi::get_one_with_args::<String>("SELECT $1::regclass::text", &[oid.into()])
                .unwrap()
                .unwrap();
            assert_eq!(session.catalog.display(table), regclass);
            assert_eq!(session.catalog.resolve_table(&regclass).unwrap().oid, table.oid);
        }
    }

    #[pg_test]
    fn conditions_are_read_under_the_callers_path_and_written_out_for_ours() {
        let session = loaded(
            "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE FUNCTION is_glad(mood) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 = 'glad' $$;
             CREATE TABLE entry (id int, mood mood)",
        );
        let table = session.catalog.resolve_table("entry").unwrap();
        let qualified = pg::qualify_condition(
            "is_glad(mood) AND entry.id > 1 -- why",
            &table.relation_sql(),
            table.oid,
            "t",
            &session.caller.as_pairs(),
        );
        let qualified = qualified.unwrap();
        assert_eq!(qualified.prefixed, "(public.is_glad(t.mood) AND (t.id > 1))");
        assert_eq!(qualified.bare, "(public.is_glad(mood) AND (id > 1))");
        assert_eq!(setting("search_path"), "pg_catalog, pg_temp");
    }

    #[pg_test]
    fn a_session_puts_the_search_path_back() {
        let before = setting("search_path");
        let session = Session::begin().unwrap();
        assert_eq!(setting("search_path"), "pg_catalog, pg_temp");
        drop(session);
        assert_eq!(setting("search_path"), before);
    }

    #[pg_test]
    fn a_subtransaction_that_fails_leaves_nothing_and_tells_all() {
        Spi::run("CREATE TABLE kept (n int CONSTRAINT positive CHECK (n > 0)); INSERT INTO kept VALUES (1)").unwrap();
        let problem = pg::subtransaction(AssertUnwindSafe(|| {
            let _path = Settings::push(&[("search_path", "pg_catalog")]);
            Spi::run("INSERT INTO public.kept VALUES (2)")?;
            Ok(Spi::run("INSERT INTO public.kept VALUES (-1)")?)
        }))
        .unwrap_err();
        assert_eq!(problem.code, PgSqlErrorCode::ERRCODE_CHECK_VIOLATION);
        assert!(problem.message.contains("positive"));
        // An error that is returned, not raised, rolls back as well.
        let returned: Result<(), Problem> = pg::subtransaction(AssertUnwindSafe(|| {
            Spi::run("INSERT INTO public.kept VALUES (3)")?;
            Err(Problem::new(PgSqlErrorCode::ERRCODE_DATA_EXCEPTION, "no"))
        }));
        assert_eq!(returned.unwrap_err().message, "no");
        assert_ne!(setting("search_path"), "pg_catalog");
        assert_eq!(Spi::get_one::<i64>("SELECT count(*) FROM kept").unwrap(), Some(1));
        pg::subtransaction(AssertUnwindSafe(|| Ok(Spi::run("INSERT INTO kept VALUES (4)")?))).unwrap();
        assert_eq!(Spi::get_one::<i64>("SELECT count(*) FROM kept").unwrap(), Some(2));
    }

    #[pg_test(error = "table \"nowhere\" does not exist")]
    fn a_problem_becomes_a_postgres_error() {
        Spi::run("SELECT backfill('nowhere', 'column')").unwrap();
    }

    /// What a backfill of `entry.party_id` over these rows would count.
    fn counted(session: &Session, rows: RowSet) -> Counts {
        let spec: RuleSpec =
            serde_json::from_value(serde_json::json!({"table": "entry", "column": "party_id"})).unwrap();
        let mut blueprint = run::prepare(session, &spec, run::PrepareOptions::default()).unwrap();
        blueprint.rows = rows;
        run::simulate_run(session, &mut blueprint, false).unwrap().counts
    }

    /// Adds up counts of disjoint sets.
    fn sum(all: impl IntoIterator<Item = Counts>) -> Counts {
        let mut sum = Counts::default();
        for counts in all {
            sum.already_set += counts.already_set;
            sum.filled += counts.filled;
            sum.unguarded += counts.unguarded;
            sum.reasons.extend(&counts.reasons);
        }
        sum
    }

    const ENTRIES: &str = "
        CREATE TABLE org (id int PRIMARY KEY); INSERT INTO org SELECT i FROM generate_series(1, 3) AS i;
        CREATE TABLE party (id int PRIMARY KEY, org_id int REFERENCES org);
        INSERT INTO party SELECT i, nullif(i % 4, 0) FROM generate_series(1, 40) AS i;
        CREATE TABLE contact (id int PRIMARY KEY, party_id int REFERENCES party);
        INSERT INTO contact SELECT i, nullif((i * 7) % 41, 0) FROM generate_series(1, 60) AS i;
        CREATE TABLE entry (org_id int REFERENCES org, id int, contact_id int, party_id int REFERENCES party, pad text, PRIMARY KEY (org_id, id));
        ALTER TABLE entry ADD FOREIGN KEY (contact_id) REFERENCES contact NOT VALID;
        INSERT INTO entry SELECT 1 + i % 3, i, CASE WHEN i % 11 > 0 THEN 1 + (i * 13) % 59 END, CASE WHEN i % 9 = 0 THEN 1 + i % 40 END, repeat('x', 200)
          FROM generate_series(1, 300) AS i;
        ALTER TABLE entry ADD CHECK (party_id <> 17) NOT VALID";

    #[pg_test]
    fn a_row_comes_to_the_same_in_whatever_set_it_is() {
        // Once without and once with an index under which rows of different sets collide.
        for index in ["", "CREATE UNIQUE INDEX one ON entry (org_id, party_id)"] {
            Spi::run("DROP TABLE IF EXISTS entry, contact, party, org CASCADE").unwrap();
            Spi::run(ENTRIES).unwrap();
            if !index.is_empty() {
                Spi::run("DELETE FROM entry WHERE party_id IS NOT NULL").unwrap();
                Spi::run(index).unwrap();
            }
            let session = Session::begin().unwrap();
            let all = counted(&session, RowSet::All);
            let total = Spi::get_one::<i64>("SELECT count(*) FROM public.entry")
                .unwrap()
                .unwrap();
            assert!(
                all.total() == total && all.filled > 0 && all.reasons.by_word().len() > 2,
                "{all:?}"
            );
            let by_blocks = [(0, Some(2)), (2, Some(3)), (3, Some(7)), (7, None)];
            let by_blocks = by_blocks.map(|(from, to)| counted(&session, RowSet::Blocks { from, to }));
            assert!(
                by_blocks.iter().filter(|counts| counts.total() > 0).count() > 2,
                "{by_blocks:?}"
            );
            assert_eq!(sum(by_blocks), all, "by blocks, {index}");
            let key = |org: i32, id: i32| Some(vec![org.to_string(), id.to_string()]);
            let bounds = [None, key(1, 100), key(2, 50), key(2, 51), key(3, 299), None];
            let by_key = bounds.windows(2).map(|pair| {
                let [after, up_to] = pair else { unreachable!() };
                counted(
                    &session,
                    RowSet::KeyRange {
                        columns: vec![1, 2],
                        after: after.clone(),
                        up_to: up_to.clone(),
                    },
                )
            });
            assert_eq!(sum(by_key), all, "by ranges of keys, {index}");
            let keys = |odd: i64| -> Vec<Vec<String>> {
                Spi::connect(|client| {
                    let sql = "SELECT e.org_id::text, e.id::text FROM public.entry e WHERE e.id OPERATOR(pg_catalog.%) 2 = $1";
                    let rows = client.select(sql, None, &[odd.into()]).unwrap();
                    rows.map(|row| {
                        vec![
                            row.get::<String>(1).unwrap().unwrap(),
                            row.get::<String>(2).unwrap().unwrap(),
                        ]
                    })
                    .collect()
                })
            };
            let by_keys = [0, 1].map(|odd| {
                counted(
                    &session,
                    RowSet::Keys {
                        columns: vec![1, 2],
                        keys: keys(odd),
                    },
                )
            });
            assert_eq!(sum(by_keys), all, "by keys, {index}");
            assert_eq!(
                counted(
                    &session,
                    RowSet::Keys {
                        columns: vec![1, 2],
                        keys: vec![]
                    }
                ),
                Counts::default()
            );
        }
    }

    #[pg_test]
    fn a_new_row_comes_to_what_it_would_be_in_the_table() {
        let session = loaded(ENTRIES);
        let one_by_one = (1..=300).map(|id| {
            let row = format!("(SELECT e.* FROM public.entry AS e WHERE e.id = {id})");
            let counts = counted(&session, RowSet::New(row));
            assert_eq!(counts.total(), 1);
            counts
        });
        assert_eq!(sum(one_by_one), counted(&session, RowSet::All));
    }
}
