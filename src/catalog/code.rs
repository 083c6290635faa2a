//! Which expressions run somebody's code. Told from the expression as Postgres keeps it (`pg_node_tree`), never from its text.

use pgrx::prelude::*;

use super::types::{Catalog, Column};
use crate::problem::Problem;

/// SQL: does the expression `tree` (a `pg_node_tree` as text; NULL: none) run nothing but functions of Postgres's own that always do the
/// same thing? A constant of a type of somebody's counts as code: written out and read again, its input function may ask a domain. They
/// read no table, and look up no cast or function by themselves, as `query_to_xml` and `to_jsonb` do.
///
/// 16384 is FirstNormalObjectId (transam.h): objects of users start there. A name inside of the tree that looks like a field of it makes
/// the answer false, never true.
pub fn is_plain(tree: &str) -> String {
    let own = "p.oid < 16384 AND p.pronamespace = 'pg_catalog'::regnamespace
          AND (p.provolatile = 'i'
               OR p.provolatile = 's' AND p.proname !~ '_to_xml|^ts_|^pg_|^lo_|^json|^to_json|_to_json'
                  AND NOT EXISTS (SELECT FROM unnest(p.proargtypes::oid[]) a JOIN pg_type t ON t.oid = a.a WHERE t.typtype = 'p')
               OR p.proname IN ('concat', 'concat_ws', 'format', 'array_to_string', 'random', 'clock_timestamp', 'timeofday', 'gen_random_uuid'))";
    // An oid from 16384 on.
    let theirs = "([0-9]{6,}|1638[4-9]|1639[0-9]|16[4-9][0-9]{2}|1[7-9][0-9]{3}|[2-9][0-9]{4})( |[}])";
    format!(
        r"coalesce((
        {tree} !~ '[{{](COERCETODOMAIN|SUBLINK|SUBPLAN|NEXTVALUEEXPR|ROWCOMPARE|QUERY|JSON[A-Z]*|XMLEXPR) '
        AND ({tree} !~ '[{{]COERCEVIAIO ' OR {tree} !~ ':resulttype {theirs}')
        AND {tree} !~ ':consttype {theirs}'
        AND NOT EXISTS (
          SELECT FROM regexp_matches({tree}, ':([a-z]*funcid|aggfnoid|winfnoid) ([0-9]+)', 'g') AS called (f)
          LEFT JOIN pg_proc p ON p.oid = called.f[2]::oid
          WHERE called.f[2] <> '0' AND ({own}) IS NOT TRUE)
        AND NOT EXISTS (
          SELECT FROM regexp_matches({tree}, ':opno ([0-9]+)', 'g') AS used (o)
          LEFT JOIN pg_operator o ON o.oid = used.o[1]::oid
          LEFT JOIN pg_proc p ON p.oid = o.oprcode
          WHERE ({own}) IS NOT TRUE)), true)"
    )
}

/// As `is_plain`, of an expression that the caller typed.
///
/// Errors: those of SPI only.
pub fn all_are_plain(trees: &[&str]) -> Result<bool, Problem> {
    let sql = format!(
        "SELECT coalesce(bool_and({}), true) FROM unnest($1) AS e (tree)",
        is_plain("e.tree")
    );
    let trees: Vec<String> = trees.iter().map(|tree| tree.to_string()).collect();
    let plain = Spi::connect(|client| client.select(&sql, None, &[trees.into()])?.first().get_one::<bool>())?;
    Ok(plain == Some(true))
}

/// Is there a domain whose CHECK is code of a role that the caller does not trust? Then a text that becomes a value of an array, row or
/// range over it runs that code, wherever it stands, even in a statement that is only read.
///
/// Errors: those of SPI only.
pub fn domains_of_others_run_code() -> Result<bool, Problem> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid
                        WHERE k.contype = 'c' AND NOT pg_has_role(t.typowner, CURRENT_USER, 'MEMBER') AND NOT {})",
        is_plain("k.conbin::text")
    );
    Ok(Spi::connect(|client| client.select(&sql, None, &[])?.first().get_one::<bool>())? == Some(true))
}

/// Adds that texts are not read as values of a column's type, where that could run code of somebody whom the caller does not trust.
pub fn texts_can_be_read(catalog: &Catalog, column: &Column) -> Result<(), Problem> {
    let Some((base, _)) = catalog.base_type(column.type_oid, -1) else {
        return Ok(());
    };
    let nested = matches!(base.kind, 'c' | 'r' | 'm') || base.category == 'A';
    if base.is_trusted() || !nested || !domains_of_others_run_code()? {
        return Ok(());
    }
    Err(Problem::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!(
            "{} is of type {}, which belongs to another role",
            column.quoted, base.display
        ),
    )
    .detail("reading a text as such a value may run the CHECK of a domain of that role with your rights")
    .hint("run it as that role"))
}
