//! Random migrations: each statement is valid behind those in front of it.

use rand::Rng;
use rand::rngs::StdRng;

#[derive(Default)]
struct Table {
    /// As SQL, schema included where it is needed.
    name: String,
    columns: Vec<String>,
    constraints: Vec<String>,
    triggers: Vec<String>,
    policies: Vec<String>,
    indexes: Vec<String>,
    secured: bool,
    /// Somebody else's.
    given: bool,
}

/// What the script has made so far.
#[derive(Default)]
struct State {
    tables: Vec<Table>,
    enums: Vec<(String, usize)>,
    functions: Vec<String>,
    views: Vec<String>,
    sequences: Vec<String>,
    /// Functions over an integer, with a body of statements.
    atomic: Vec<String>,
    /// Partitioned tables, and partitions with what they are attached to.
    partitioned: Vec<String>,
    partitions: Vec<(String, Option<String>)>,
    /// Tables that inherit from another one, or do not.
    heirs: Vec<(String, String, bool)>,
    next: usize,
}

impl State {
    fn fresh(&mut self, random: &mut StdRng, prefix: &str) -> String {
        self.next += 1;
        match random.random_range(0..6) {
            0 => format!("\"{prefix} Odd;'{}\"", self.next),
            _ => format!("{prefix}_{}", self.next),
        }
    }
}

const TYPES: [(&str, &str); 7] = [
    ("integer", "1 + 2"),
    ("text", "'a;''b'"),
    ("varchar(20)", "'x'"),
    ("timestamptz", "now()"),
    ("numeric(10, 2)", "0"),
    ("boolean", "false"),
    ("jsonb", "'{\"a\": [1, 2]}'"),
];

fn pick<'a, T>(random: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}

fn column(state: &mut State, random: &mut StdRng) -> (String, String) {
    let name = state.fresh(random, "c");
    let (type_name, default) = TYPES[random.random_range(0..TYPES.len())];
    let mut sql = format!("{name} {type_name}");
    if random.random_bool(0.4) {
        sql += &format!(" DEFAULT {default}");
    }
    if random.random_bool(0.3) {
        sql += " NOT NULL";
    }
    (name, sql)
}

fn create_table(state: &mut State, random: &mut StdRng) -> String {
    let schema = *pick(random, &["", "", "", "other."]);
    let name = format!("{schema}{}", state.fresh(random, "t"));
    let mut table = Table {
        name: name.clone(),
        ..Table::default()
    };
    let mut parts = vec![match random.random_range(0..3) {
        0 => "id serial PRIMARY KEY".to_string(),
        1 => "id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY".into(),
        _ => "id integer PRIMARY KEY".into(),
    }];
    for _ in 0..random.random_range(0..4) {
        let (name, sql) = column(state, random);
        table.columns.push(name);
        parts.push(sql);
    }
    if random.random_bool(0.3) {
        parts.push("CHECK (id > 0 AND id <> 7)".into());
    }
    if random.random_bool(0.3)
        && let Some(parent) = state.tables.first()
    {
        parts.push(format!(
            "parent_id integer REFERENCES {} ON DELETE CASCADE",
            parent.name
        ));
    }
    let quiet = if random.random_bool(0.3) { "IF NOT EXISTS " } else { "" };
    state.tables.push(table);
    format!("CREATE TABLE {quiet}{name} ({})", parts.join(", "))
}

/// One more statement.
fn statement(state: &mut State, random: &mut StdRng) -> String {
    if state.tables.is_empty() {
        return create_table(state, random);
    }
    let at = random.random_range(0..state.tables.len());
    let name = state.tables[at].name.clone();
    match random.random_range(0..42) {
        27..42 => further(state, random, at),
        0 | 1 => create_table(state, random),
        2 | 3 => {
            let (column, sql) = column(state, random);
            state.tables[at].columns.push(column);
            let quiet = if random.random_bool(0.3) { "IF NOT EXISTS " } else { "" };
            format!("ALTER TABLE {name} ADD COLUMN {quiet}{sql}")
        }
        4 if !state.tables[at].columns.is_empty() => {
            let of = random.random_range(0..state.tables[at].columns.len());
            // What stands on it goes as well; the generator forgets it all.
            let column = state.tables[at].columns.remove(of);
            state.views.clear();
            state.tables[at].indexes.clear();
            state.tables[at].constraints.clear();
            format!("ALTER TABLE {name} DROP COLUMN {column} CASCADE")
        }
        5 if !state.tables[at].columns.is_empty() => {
            let of = random.random_range(0..state.tables[at].columns.len());
            let to = state.fresh(random, "c");
            let from = std::mem::replace(&mut state.tables[at].columns[of], to.clone());
            format!("ALTER TABLE {name} RENAME COLUMN {from} TO {to}")
        }
        6 if !state.tables[at].columns.is_empty() => {
            let column = pick(random, &state.tables[at].columns).clone();
            format!("ALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL")
        }
        7 if !state.tables[at].columns.is_empty() => {
            let column = pick(random, &state.tables[at].columns).clone();
            format!("ALTER TABLE {name} ALTER {column} DROP DEFAULT, ALTER {column} DROP NOT NULL")
        }
        8 => {
            let constraint = state.fresh(random, "k");
            state.tables[at].constraints.push(constraint.clone());
            let number = random.random_range(10..99);
            let not_valid = if random.random_bool(0.3) { " NOT VALID" } else { "" };
            format!("ALTER TABLE {name} ADD CONSTRAINT {constraint} CHECK (id <> {number}){not_valid}")
        }
        9 if !state.tables[at].constraints.is_empty() => {
            let constraint = pick(random, &state.tables[at].constraints).clone();
            format!("ALTER TABLE {name} VALIDATE CONSTRAINT {constraint}")
        }
        10 if !state.tables[at].constraints.is_empty() => {
            let of = random.random_range(0..state.tables[at].constraints.len());
            let constraint = state.tables[at].constraints.remove(of);
            format!("ALTER TABLE {name} DROP CONSTRAINT {constraint}")
        }
        11 | 12 => {
            let index = state.fresh(random, "i");
            let schema = if name.starts_with("other.") { "other." } else { "" };
            state.tables[at].indexes.push(format!("{schema}{index}"));
            let what = match random.random_range(0..4) {
                0 => "id DESC NULLS LAST".to_string(),
                1 => "(id + 1), id".into(),
                2 => "id) WHERE (id > 5".into(),
                _ => "id) INCLUDE (id".into(),
            };
            let unique = if random.random_bool(0.3) { "UNIQUE " } else { "" };
            format!("CREATE {unique}INDEX {index} ON {name} ({what})")
        }
        13 if !state.tables[at].indexes.is_empty() => {
            let of = random.random_range(0..state.tables[at].indexes.len());
            let index = state.tables[at].indexes.remove(of);
            format!("DROP INDEX {index}")
        }
        14 => {
            let function = state.fresh(random, "f");
            state.functions.push(function.clone());
            format!(
                "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; -- ;\nEND $f$"
            )
        }
        15 if !state.functions.is_empty() => {
            let function = pick(random, &state.functions).clone();
            let number = random.random_range(0..1_000_000);
            format!(
                "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; -- {number}\nEND'"
            )
        }
        16 if !state.functions.is_empty() => {
            let function = pick(random, &state.functions).clone();
            let trigger = state.fresh(random, "g");
            state.tables[at].triggers.push(trigger.clone());
            let when = *pick(random, &["", "", "WHEN (OLD.id IS DISTINCT FROM NEW.id) "]);
            format!("CREATE TRIGGER {trigger} BEFORE UPDATE ON {name} FOR EACH ROW {when}EXECUTE FUNCTION {function}()")
        }
        17 if !state.tables[at].triggers.is_empty() => {
            let of = random.random_range(0..state.tables[at].triggers.len());
            let trigger = state.tables[at].triggers.remove(of);
            format!("DROP TRIGGER {trigger} ON {name}")
        }
        18 => {
            let policy = state.fresh(random, "p");
            state.tables[at].policies.push(policy.clone());
            let command = *pick(random, &["", "FOR SELECT ", "FOR UPDATE "]);
            format!("CREATE POLICY {policy} ON {name} {command}USING (id > 0 AND current_user <> 'nobody')")
        }
        19 if !state.tables[at].policies.is_empty() => {
            let of = random.random_range(0..state.tables[at].policies.len());
            let policy = state.tables[at].policies.remove(of);
            format!("DROP POLICY {policy} ON {name}")
        }
        20 if !state.tables[at].secured => {
            state.tables[at].secured = true;
            format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
        }
        21 => {
            let name = state.fresh(random, "e");
            state.enums.push((name.clone(), 2));
            format!("CREATE TYPE {name} AS ENUM ('l0', 'l1')")
        }
        22 if !state.enums.is_empty() => {
            let of = random.random_range(0..state.enums.len());
            let (name, labels) = &mut state.enums[of];
            *labels += 1;
            format!("ALTER TYPE {name} ADD VALUE 'l{labels}'")
        }
        23 => {
            let view = state.fresh(random, "v");
            state.views.push(view.clone());
            format!("CREATE VIEW {view} AS SELECT id AS x, id * 2 AS y FROM {name} WHERE id > 1")
        }
        24 => {
            let sequence = state.fresh(random, "s");
            state.sequences.push(sequence.clone());
            format!("CREATE SEQUENCE {sequence}")
        }
        25 => {
            let number = random.random_range(0..1_000_000);
            format!("COMMENT ON TABLE {name} IS 'about it; {number}'")
        }
        26 if state.tables.len() > 1 && state.views.is_empty() && !name.starts_with("other.") => {
            let to = state.fresh(random, "t");
            state.tables[at].name = to.clone();
            format!("ALTER TABLE {name} RENAME TO {to}")
        }
        _ => format!("GRANT SELECT ON {name} TO PUBLIC"),
    }
}

/// Statements of rarer kinds.
fn further(state: &mut State, random: &mut StdRng, at: usize) -> String {
    let name = state.tables[at].name.clone();
    let number = random.random_range(1..1000);
    match random.random_range(0..18) {
        0 => {
            let sequence = state.fresh(random, "s");
            state.sequences.push(sequence.clone());
            format!(
                "CREATE SEQUENCE {sequence} AS integer INCREMENT {number} MINVALUE -5 NO MAXVALUE START 7 CACHE 2 CYCLE"
            )
        }
        1 if !state.sequences.is_empty() => {
            let sequence = pick(random, &state.sequences).clone();
            format!("ALTER SEQUENCE {sequence} INCREMENT {number} NO CYCLE")
        }
        2 if !state.sequences.is_empty() && !name.starts_with("other.") && !state.tables[at].given => {
            // Its owner goes with that of the table from now on.
            let of = random.random_range(0..state.sequences.len());
            let sequence = state.sequences.remove(of);
            let owner = *pick(random, &["NONE", "table"]);
            format!(
                "ALTER SEQUENCE {sequence} OWNED BY {}",
                owner.replace("table", &format!("{name}.id"))
            )
        }
        3 => {
            let view = state.fresh(random, "m");
            state.views.push(view.clone());
            format!("CREATE MATERIALIZED VIEW {view} (a, b) AS SELECT id, id * {number} FROM {name} WITH NO DATA")
        }
        4 => {
            let made = state.fresh(random, "ct");
            format!(
                "CREATE TYPE {made} AS (a numeric({}, 2), \"b c\" text COLLATE \"C\", d integer[])",
                3 + number % 7
            )
        }
        5 => {
            let made = state.fresh(random, "d");
            format!(
                "CREATE DOMAIN {made} AS varchar({number}) COLLATE \"C\" NOT NULL DEFAULT 'x' CHECK (VALUE <> 'y' AND length(VALUE) < {number}) CHECK (VALUE > '')"
            )
        }
        6 => {
            let function = state.fresh(random, "f");
            format!(
                "CREATE FUNCTION {function}(a integer, INOUT b text DEFAULT 'x' || {number}, VARIADIC c integer[] DEFAULT '{{}}', OUT d date)\n\
                 LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, \"$user\" SET work_mem = '{number}MB' AS 'BEGIN END'"
            )
        }
        7 => {
            let function = state.fresh(random, "f");
            format!(
                "CREATE FUNCTION {function}(integer DEFAULT {number}) RETURNS TABLE (x integer, y text) LANGUAGE sql AS $f$SELECT 1, NULL::text$f$"
            )
        }
        8 => {
            let function = state.fresh(random, "f");
            state.atomic.push(function.clone());
            format!(
                "CREATE FUNCTION {function}(a integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT a + max(g.x) FROM generate_series(1, {number}) AS g (x); END"
            )
        }
        9 if !state.atomic.is_empty() => {
            let function = pick(random, &state.atomic).clone();
            format!("CREATE OR REPLACE FUNCTION {function}(a integer) RETURNS integer RETURN a * {number}")
        }
        10 => {
            let constraint = state.fresh(random, "k");
            format!(
                "ALTER TABLE {name} ADD CONSTRAINT {constraint} EXCLUDE USING btree (id WITH =, (id % {number}) WITH =) INCLUDE (id) WHERE (id > {number}) DEFERRABLE"
            )
        }
        11 => {
            let made = state.fresh(random, "w");
            state.partitioned.push(made.clone());
            format!(
                "CREATE TABLE {made} (id integer NOT NULL, v text COLLATE \"C\") PARTITION BY RANGE (id, (id % {number}))"
            )
        }
        12 if !state.partitioned.is_empty() => {
            let whole = pick(random, &state.partitioned).clone();
            let made = state.fresh(random, "part");
            state.partitions.push((made.clone(), Some(whole.clone())));
            format!(
                "CREATE TABLE {made} PARTITION OF {whole} FOR VALUES FROM ({0}, MINVALUE) TO ({0}, 0)",
                state.next * 10
            )
        }
        13 if !state.partitions.is_empty() => {
            let of = random.random_range(0..state.partitions.len());
            let number = state.next * 10 + 5;
            state.next += 1;
            match state.partitions[of].clone() {
                (part, Some(whole)) => {
                    state.partitions[of].1 = None;
                    format!("ALTER TABLE {whole} DETACH PARTITION {part}")
                }
                (part, None) => {
                    let whole = pick(random, &state.partitioned).clone();
                    state.partitions[of].1 = Some(whole.clone());
                    format!(
                        "ALTER TABLE {whole} ATTACH PARTITION {part} FOR VALUES FROM ({number}, 0) TO ({number}, MAXVALUE)"
                    )
                }
            }
        }
        14 if !state.heirs.is_empty() => {
            let of = random.random_range(0..state.heirs.len());
            let (child, parent, inherits) = &mut state.heirs[of];
            *inherits = !*inherits;
            let no = if *inherits { "" } else { "NO " };
            format!("ALTER TABLE {child} {no}INHERIT {parent}")
        }
        14 => {
            let (child, parent) = (state.fresh(random, "h"), state.partitioned.len());
            let parent = format!("parent_{parent}_{}", state.next);
            state.heirs.push((child.clone(), parent.clone(), true));
            format!("CREATE TABLE {parent} (x integer); CREATE TABLE {child} (y text) INHERITS ({parent})")
        }
        15 if !state.tables[at].policies.is_empty() => {
            let policy = pick(random, &state.tables[at].policies).clone();
            let to = *pick(random, &["", " TO pg_monitor", " TO PUBLIC"]);
            format!("ALTER POLICY {policy} ON {name}{to} USING (id > {number})")
        }
        16 if !state.tables[at].triggers.is_empty() => {
            let trigger = pick(random, &state.tables[at].triggers).clone();
            let how = *pick(random, &["DISABLE", "ENABLE ALWAYS", "ENABLE REPLICA"]);
            format!("ALTER TABLE {name} {how} TRIGGER {trigger}")
        }
        _ => {
            state.tables[at].given = true;
            let to = *pick(random, &["pg_monitor", "pg_signal_backend"]);
            format!("ALTER TABLE {name} OWNER TO {to}")
        }
    }
}

/// A script of so many statements; a schema is made first.
pub fn script(random: &mut StdRng, length: usize) -> Vec<String> {
    let mut state = State::default();
    let mut all = vec!["CREATE SCHEMA other".to_string()];
    while all.len() < length {
        let next = statement(&mut state, random);
        all.extend(next.split("; CREATE TABLE").enumerate().map(|(at, part)| match at {
            0 => part.to_string(),
            _ => format!("CREATE TABLE{part}"),
        }));
    }
    all
}
