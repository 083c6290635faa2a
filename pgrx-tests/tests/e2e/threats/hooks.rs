//! Every place that Postgres offers for code, each with a canary in it: a function of the hostile role that says who ran it.

/// One place for code, and what the hostile role puts there.
pub struct Hook {
    /// As the canary says it, and SECURITY.md.
    pub name: &'static str,
    /// Run as the hostile role, which owns the schema `att`.
    pub setup: &'static str,
    /// Plain SQL that runs the canary with the rights of whoever runs it: shows that the canary sings.
    pub plain: &'static str,
    /// The table, or what calls are about; empty: no table of its own.
    pub table: &'static str,
}

/// The canary, and what all hooks share. Functions are IMMUTABLE so that indexes and generated columns take them.
pub const SHARED: &str = r#"
CREATE FUNCTION att.canary(hook text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE restricted boolean := false;
BEGIN
  BEGIN
    PERFORM pg_catalog.set_config('role', 'none', true);
  EXCEPTION WHEN OTHERS THEN
    restricted := SQLERRM LIKE '%security-restricted operation%';
  END;
  RAISE WARNING 'canary|%|%|%', hook, current_user, restricted;
END $$;
CREATE FUNCTION att.yes(hook text, value int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM att.canary(hook); RETURN true; END $$;
CREATE FUNCTION att.num(hook text, value int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM att.canary(hook); RETURN value; END $$;
CREATE TABLE att.tenants (id int PRIMARY KEY);
CREATE TABLE att.p (id int PRIMARY KEY, tenant_id int REFERENCES att.tenants, UNIQUE (id, tenant_id));
INSERT INTO att.tenants VALUES (1), (2);
INSERT INTO att.p VALUES (1, 1), (2, 2);
"#;

/// A table `att.h_NAME` with a row to fill, an orphan, and a reference to another tenant.
macro_rules! table {
    ($name:literal, $columns:literal, $more:literal) => {
        concat!(
            "CREATE TABLE att.h_",
            $name,
            " (id int PRIMARY KEY, tenant_id int REFERENCES att.tenants, p_id int",
            $columns,
            ");\n",
            "INSERT INTO att.h_",
            $name,
            " (id, tenant_id, p_id) VALUES (1, NULL, 1), (2, NULL, 999), (3, 2, 1), (4, NULL, 2);\n",
            "ALTER TABLE att.h_",
            $name,
            " ADD CONSTRAINT h_",
            $name,
            "_p FOREIGN KEY (p_id) REFERENCES att.p NOT VALID;\n",
            $more
        )
    };
}

/// All of them. What only superusers can create is not here: base types with input and output functions, operator classes, event
/// triggers, foreign data wrappers with a handler, casts without a function.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "CHECK",
        setup: table!("check", "", "ALTER TABLE att.h_check ADD CHECK (att.yes('CHECK', tenant_id));"),
        plain: "UPDATE att.h_check SET id = id",
        table: "att.h_check",
    },
    Hook {
        name: "domain",
        setup: "CREATE DOMAIN att.dom AS int CHECK (att.yes('domain', VALUE));
                CREATE TABLE att.h_domain (id att.dom PRIMARY KEY, tenant_id att.dom REFERENCES att.tenants, p_id att.dom);
                INSERT INTO att.h_domain (id, tenant_id, p_id) VALUES (1, NULL, 1), (2, NULL, 999), (3, 2, 1), (4, NULL, 2);
                ALTER TABLE att.h_domain ADD CONSTRAINT h_domain_p FOREIGN KEY (p_id) REFERENCES att.p NOT VALID;",
        plain: "SELECT 1::att.dom",
        table: "att.h_domain",
    },
    Hook {
        name: "default",
        setup: table!("default", ", d int DEFAULT att.num('default', 1)", ""),
        plain: "INSERT INTO att.h_default (id) VALUES (77)",
        table: "att.h_default",
    },
    Hook {
        name: "generated column",
        setup: table!("generated", ", g int GENERATED ALWAYS AS (att.num('generated column', tenant_id)) STORED", "ALTER TABLE att.h_generated ADD CHECK (g < 1000);"),
        plain: "UPDATE att.h_generated SET tenant_id = tenant_id",
        table: "att.h_generated",
    },
    Hook {
        name: "index expression",
        setup: table!("index", "", "CREATE UNIQUE INDEX ON att.h_index ((att.num('index expression', tenant_id)), id);"),
        plain: "INSERT INTO att.h_index (id) VALUES (77)",
        table: "att.h_index",
    },
    Hook {
        name: "index predicate",
        setup: table!("predicate", "", "CREATE UNIQUE INDEX ON att.h_predicate (tenant_id, id) WHERE att.yes('index predicate', tenant_id);"),
        plain: "INSERT INTO att.h_predicate (id) VALUES (77)",
        table: "att.h_predicate",
    },
    Hook {
        name: "partition key",
        setup: "CREATE TABLE att.h_partition (id int, tenant_id int REFERENCES att.tenants, p_id int REFERENCES att.p)
                  PARTITION BY RANGE ((att.num('partition key', tenant_id)));
                CREATE TABLE att.h_partition_1 PARTITION OF att.h_partition DEFAULT;
                INSERT INTO att.h_partition (id, tenant_id, p_id) VALUES (1, NULL, 1), (3, 2, 1);",
        plain: "INSERT INTO att.h_partition (id) VALUES (77)",
        table: "att.h_partition",
    },
    Hook {
        name: "domain of a partition key",
        setup: "CREATE DOMAIN att.part AS int CHECK (att.yes('domain of a partition key', VALUE));
                CREATE TABLE att.h_part (id int, tenant_id att.part REFERENCES att.tenants, p_id int REFERENCES att.p)
                  PARTITION BY RANGE (tenant_id);
                CREATE TABLE att.h_part_1 PARTITION OF att.h_part FOR VALUES FROM (1) TO (2);
                CREATE TABLE att.h_part_new PARTITION OF att.h_part FOR VALUES FROM (2) TO (3);
                INSERT INTO att.h_part (id, tenant_id, p_id) VALUES (1, 1, 1), (3, 2, 1);",
        plain: "INSERT INTO att.h_part (id, tenant_id) VALUES (77, 1)",
        table: "att.h_part",
    },
    Hook {
        name: "policy",
        setup: table!("policy", "", "ALTER TABLE att.h_policy ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON att.h_policy USING (att.yes('policy', id)); GRANT SELECT ON att.h_policy TO PUBLIC; GRANT USAGE ON SCHEMA att TO PUBLIC; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA att TO PUBLIC;"),
        plain: "SET ROLE nobody_in_particular; SELECT * FROM att.h_policy; RESET ROLE",
        table: "att.h_policy",
    },
    Hook {
        name: "rule",
        setup: table!("rule", "", "CREATE RULE also AS ON UPDATE TO att.h_rule DO ALSO SELECT att.yes('rule', NEW.id);"),
        plain: "UPDATE att.h_rule SET id = id",
        table: "att.h_rule",
    },
    Hook {
        name: "trigger",
        setup: table!("trigger", "", "CREATE FUNCTION att.fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM att.canary('trigger'); RETURN NEW; END $$; CREATE TRIGGER t BEFORE INSERT OR UPDATE ON att.h_trigger FOR EACH ROW EXECUTE FUNCTION att.fire();"),
        plain: "UPDATE att.h_trigger SET id = id",
        table: "att.h_trigger",
    },
    Hook {
        name: "what the parent enforces",
        setup: "CREATE TABLE att.q (id int PRIMARY KEY CHECK (att.yes('what the parent enforces', id)), tenant_id int REFERENCES att.tenants, name text DEFAULT 'x', UNIQUE (id, tenant_id));
                CREATE UNIQUE INDEX ON att.q ((att.num('what the parent enforces', id)), name);
                INSERT INTO att.q VALUES (1, 1), (2, 2);
                CREATE TABLE att.h_parent (id int PRIMARY KEY, tenant_id int REFERENCES att.tenants, p_id int, name text);
                INSERT INTO att.h_parent VALUES (1, NULL, 1, 'a'), (2, 1, 999, 'b'), (3, 2, 1, 'c');
                ALTER TABLE att.h_parent ADD CONSTRAINT h_parent_p FOREIGN KEY (p_id) REFERENCES att.q NOT VALID;",
        plain: "INSERT INTO att.q VALUES (77)",
        table: "att.h_parent",
    },
    Hook {
        name: "cast to json",
        setup: "CREATE TYPE att.e_json AS ENUM ('a', 'b', 'c');
                CREATE FUNCTION att.to_j(att.e_json) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM att.canary('cast to json'); RETURN '1'; END $$;
                CREATE CAST (att.e_json AS json) WITH FUNCTION att.to_j(att.e_json);
                CREATE TABLE att.h_json (id att.e_json PRIMARY KEY, tenant_id int REFERENCES att.tenants, p_id int);
                INSERT INTO att.h_json VALUES ('a', NULL, 1), ('b', NULL, 999), ('c', 2, 1);
                ALTER TABLE att.h_json ADD CONSTRAINT h_json_p FOREIGN KEY (p_id) REFERENCES att.p NOT VALID;",
        plain: "SELECT pg_catalog.to_jsonb(t) FROM att.h_json t",
        table: "att.h_json",
    },
    Hook {
        name: "cast to text",
        setup: "CREATE TYPE att.e_text AS ENUM ('a', 'b', 'c');
                CREATE FUNCTION att.to_t(att.e_text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM att.canary('cast to text'); RETURN 'x'; END $$;
                CREATE CAST (att.e_text AS text) WITH FUNCTION att.to_t(att.e_text) AS IMPLICIT;
                CREATE TABLE att.by_text (id att.e_text PRIMARY KEY, tenant_id int REFERENCES att.tenants, UNIQUE (id, tenant_id));
                CREATE TABLE att.h_text (id att.e_text PRIMARY KEY, tenant_id int REFERENCES att.tenants, p_id att.e_text);
                INSERT INTO att.by_text VALUES ('a', 1), ('b', 2);
                INSERT INTO att.h_text VALUES ('a', NULL, 'a'), ('b', NULL, 'c'), ('c', 2, 'a');
                ALTER TABLE att.h_text ADD CONSTRAINT h_text_p FOREIGN KEY (p_id) REFERENCES att.by_text NOT VALID;",
        plain: "SELECT id::text FROM att.h_text",
        table: "att.h_text",
    },
    Hook {
        name: "cast from text",
        setup: "CREATE TYPE att.e_in AS ENUM ('a', 'b', 'c');
                CREATE FUNCTION att.from_t(text) RETURNS att.e_in LANGUAGE plpgsql AS $$ BEGIN PERFORM att.canary('cast from text'); RETURN 'a'; END $$;
                CREATE CAST (text AS att.e_in) WITH FUNCTION att.from_t(text) AS IMPLICIT;
                CREATE TABLE att.by_in (id att.e_in PRIMARY KEY, tenant_id int REFERENCES att.tenants, UNIQUE (id, tenant_id));
                CREATE TABLE att.h_in (id att.e_in PRIMARY KEY, tenant_id int REFERENCES att.tenants, p_id att.e_in);
                INSERT INTO att.by_in VALUES ('a', 1), ('b', 2);
                INSERT INTO att.h_in VALUES ('a', NULL, 'a'), ('b', NULL, 'c'), ('c', 2, 'a');
                ALTER TABLE att.h_in ADD CONSTRAINT h_in_p FOREIGN KEY (p_id) REFERENCES att.by_in NOT VALID;",
        plain: "SELECT 'a'::text::att.e_in",
        table: "att.h_in",
    },
    Hook {
        name: "cast of a foreign key",
        setup: "CREATE TYPE att.e_key AS ENUM ('1', '2', '999');
                CREATE FUNCTION att.to_i(att.e_key) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM att.canary('cast of a foreign key'); RETURN pg_catalog.format('%s', $1)::int; END $$;
                CREATE CAST (att.e_key AS int) WITH FUNCTION att.to_i(att.e_key) AS IMPLICIT;
                CREATE TABLE att.h_key (id int PRIMARY KEY, tenant_id int REFERENCES att.tenants, p_id att.e_key);
                INSERT INTO att.h_key VALUES (1, NULL, '1'), (2, NULL, '999'), (3, 2, '1');
                ALTER TABLE att.h_key ADD CONSTRAINT h_key_p FOREIGN KEY (p_id) REFERENCES att.p NOT VALID;",
        plain: "SELECT t.p_id = p.id FROM att.h_key t, att.p",
        table: "att.h_key",
    },
    Hook {
        name: "operator",
        setup: "CREATE TYPE att.e_op AS ENUM ('a', 'b', 'c');
                CREATE FUNCTION att.eq(att.e_op, att.e_op) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM att.canary('operator'); RETURN true; END $$;
                CREATE OPERATOR att.= (LEFTARG = att.e_op, RIGHTARG = att.e_op, FUNCTION = att.eq);
                CREATE FUNCTION att.eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM att.canary('operator'); RETURN true; END $$;
                CREATE OPERATOR att.= (LEFTARG = int, RIGHTARG = int, FUNCTION = att.eq);
                CREATE TABLE att.by_op (id att.e_op PRIMARY KEY, tenant_id int REFERENCES att.tenants);
                CREATE TABLE att.h_op (id att.e_op PRIMARY KEY, tenant_id int REFERENCES att.tenants, p_id att.e_op);
                INSERT INTO att.by_op VALUES ('a', 1), ('b', 2);
                INSERT INTO att.h_op VALUES ('a', NULL, 'a'), ('b', NULL, 'c'), ('c', 2, 'a');
                ALTER TABLE att.h_op ADD CONSTRAINT h_op_p FOREIGN KEY (p_id) REFERENCES att.by_op NOT VALID;",
        plain: "SET search_path = att, pg_catalog; SELECT id = p_id FROM att.h_op; RESET search_path",
        table: "att.h_op",
    },
    Hook {
        name: "aggregate",
        setup: "CREATE FUNCTION att.grow(bigint, int) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM att.canary('aggregate'); RETURN 1; END $$;
                CREATE AGGREGATE att.max(int) (SFUNC = att.grow, STYPE = bigint);
                CREATE AGGREGATE att.count(int) (SFUNC = att.grow, STYPE = bigint);",
        plain: "SELECT att.count(id) FROM att.p",
        table: "",
    },
    Hook {
        name: "statistics",
        setup: table!("statistics", "", "CREATE STATISTICS att.s ON (att.num('statistics', tenant_id)), p_id FROM att.h_statistics; ANALYZE att.h_statistics;"),
        plain: "",
        table: "att.h_statistics",
    },
    Hook {
        name: "collation",
        setup: "CREATE COLLATION att.odd (provider = icu, locale = 'und', deterministic = false);
                CREATE TABLE att.by_odd (id text COLLATE att.odd PRIMARY KEY, tenant_id int REFERENCES att.tenants);
                CREATE TABLE att.h_odd (id text PRIMARY KEY, tenant_id int REFERENCES att.tenants, p_id text);
                INSERT INTO att.by_odd VALUES ('a', 1); INSERT INTO att.h_odd VALUES ('a', NULL, 'a'), ('b', NULL, 'c');
                ALTER TABLE att.h_odd ADD CONSTRAINT h_odd_p FOREIGN KEY (p_id) REFERENCES att.by_odd NOT VALID;",
        plain: "",
        table: "att.h_odd",
    },
    Hook {
        name: "view",
        setup: "CREATE VIEW att.v AS SELECT 1 AS id, att.num('view', 1) AS tenant_id, att.num('view', 999) AS p_id;
                SELECT declare_reference('att.v', 'p_id', 'att.p(id)'), declare_reference('att.v', 'tenant_id', 'att.tenants(id)');
                CREATE TABLE att.h_view (id int PRIMARY KEY, tenant_id int REFERENCES att.tenants, v_ref int);
                INSERT INTO att.h_view VALUES (1, 1, 1);
                SELECT declare_reference('att.h_view', 'v_ref', 'att.v(id)');",
        plain: "SELECT * FROM att.v",
        table: "att.h_view",
    },
    Hook {
        name: "foreign table",
        setup: "CREATE SERVER far FOREIGN DATA WRAPPER without_handler;
                CREATE FOREIGN TABLE att.far (id int, tenant_id int, p_id int) SERVER far;
                SELECT declare_reference('att.far', 'p_id', 'att.p(id)'), declare_reference('att.far', 'tenant_id', 'att.tenants(id)');",
        plain: "",
        table: "",
    },
];
