//! Domains, composite types, partitions and sequences: as written?

use pgrx::spi::quote_identifier;

use super::text::bare;
use super::{Difference, ExpressionContext, collations, differ, expressions, means, same, type_of};
use crate::migration::actual;
use crate::pg::analysis::{self, Use};
use crate::pg::ast::{Expression, TypeName};
use crate::script::ast::{DomainDefinition, Name, PartitionKey, SequenceOption, SequenceValue};

pub(super) fn domains(
    written: &DomainDefinition,
    is: &actual::Type,
    setting: &ExpressionContext,
    path: &[String],
) -> Difference {
    match type_of(&written.base, path) {
        Ok(Some(base)) if base == is.base => {}
        Ok(None) if setting.renamed => return None,
        Ok(_) => return Some(format!("its base type is another than {}", written.base.text)),
        Err(problem) => return Some(problem.message),
    }
    let (type_oid, modifier) = is.base;
    let default = || {
        // That of a domain below is its own.
        if written.default.is_none() && is.over_domain {
            return None;
        }
        let form = Use::Default {
            column: &is.name,
            type_oid,
            modifier,
            generated: false,
        };
        expressions("the default", is.default.as_deref(), written.default, form, 0, setting)
    };
    collations(written.collation.as_ref(), is.collation.as_ref(), path)
        .or_else(|| same("NOT NULL", &is.not_null, &written.not_null))
        .or_else(default)
        .or_else(|| {
            if is.checks.len() != written.checks.len() {
                return differ("the number of its CHECKs", is.checks.len(), written.checks.len());
            }
            // Postgres keeps them in the order in which they are written.
            let form = Use::Domain { type_oid, modifier };
            is.checks
                .iter()
                .zip(&written.checks)
                .find_map(|(is, written)| expressions("CHECK", Some(is), Some(*written), form, 0, setting))
        })
}

pub(super) fn attributes(
    written: &[(String, TypeName, Option<Name>)],
    is: &actual::Type,
    setting: &ExpressionContext,
    path: &[String],
) -> Difference {
    let names = |all: Vec<&String>| format!("{all:?}");
    let there: Vec<&String> = is.attributes.iter().map(|(name, ..)| name).collect();
    let wanted: Vec<&String> = written.iter().map(|(name, ..)| name).collect();
    if there != wanted {
        return match setting.renamed {
            true => None,
            false => differ("what it is made of", names(there), names(wanted)),
        };
    }
    written
        .iter()
        .zip(&is.attributes)
        .find_map(
            |((name, written, collation), (_, oid, modifier, is))| match type_of(written, path) {
                Ok(Some(found)) if found == (*oid, *modifier) => collations(collation.as_ref(), is.as_ref(), path),
                Ok(None) if setting.renamed => None,
                Ok(_) => Some(format!("the type of {name} is not {}", written.text)),
                Err(problem) => Some(problem.message),
            },
        )
}

pub(super) fn partition_keys(
    written: Option<&PartitionKey>,
    is: &actual::Relation,
    setting: &ExpressionContext,
) -> Difference {
    let text = match written {
        None => None,
        Some(written) => {
            let mut parts = Vec::new();
            for (column, expression, behind) in &written.parts {
                let part = match (column, expression) {
                    (_, Some(_)) if setting.code_of_others => return None,
                    (_, Some(expression)) => {
                        match analysis::stored(*expression, Use::Partition, is.oid, &setting.setting) {
                            Ok(text) => text,
                            Err(problem) if setting.excuse(&problem) => return None,
                            Err(problem) => return Some(format!("PARTITION BY: {}", problem.message)),
                        }
                    }
                    (Some(column), None) => quote_identifier(column),
                    (None, None) => String::new(),
                };
                parts.push(format!("{part}{behind}"));
            }
            Some(format!("{} ({})", written.strategy, parts.join(", ")))
        }
    };
    match (&is.partition_key, &text) {
        (None, None) => None,
        (None, Some(written)) => Some(format!("it is not partitioned, written is {written}")),
        (Some(is), None) => Some(format!("it is partitioned by {is}")),
        // Postgres decides by itself where it puts parentheses.
        (Some(is), Some(written)) if bare(is) == bare(written) || setting.renamed => None,
        (Some(is), Some(written)) => differ("the partition key", is, written),
    }
}

pub(super) fn bounds(written: Expression, is: &str, whole: u32, setting: &ExpressionContext) -> Difference {
    match analysis::stored_bound(written, whole, &setting.setting) {
        Ok(Some(written)) if written != is => differ("its bound", is, written),
        // What is computed is not computed here.
        Ok(_) => None,
        Err(problem) if setting.excuse(&problem) => None,
        Err(problem) => Some(format!("its bound: {}", problem.message)),
    }
}

pub(super) fn sequences(
    option: SequenceOption,
    written: &SequenceValue,
    is: &actual::Sequence,
    setting: &ExpressionContext,
    path: &[String],
) -> Difference {
    let number = |what: &str, is: i64| match written {
        SequenceValue::Number(written) if *written != is.to_string() => differ(what, is, written),
        _ => None,
    };
    match (option, written) {
        (SequenceOption::Increment, _) => number("INCREMENT", is.increment),
        (SequenceOption::Minimum, _) => number("MINVALUE", is.minimum),
        (SequenceOption::Maximum, _) => number("MAXVALUE", is.maximum),
        (SequenceOption::Start, _) => number("START", is.start),
        (SequenceOption::Cache, _) => number("CACHE", is.cache),
        (SequenceOption::Cycle, SequenceValue::Yes(written)) => same("CYCLE", &is.cycle, written),
        (SequenceOption::Type, SequenceValue::Type(written)) => {
            // oids of pg_type.dat.
            let name = match is.type_oid {
                21 => "int2",
                23 => "int4",
                _ => "int8",
            };
            (name != written).then(|| format!("its type is {name}, written is {written}"))
        }
        (SequenceOption::Owner, SequenceValue::Column(written)) => {
            let name = |schema: Option<&String>, table: &String| Name {
                schema: schema.cloned(),
                name: table.clone(),
            };
            let fits = match (written.as_slice(), &is.owned) {
                ([_], None) => true,
                ([table, column], Some((schema, owner, own))) => {
                    column == own && means(&name(None, table), (schema, owner), path)
                }
                ([.., of, table, column], Some((schema, owner, own))) => {
                    column == own && means(&name(Some(of), table), (schema, owner), path)
                }
                _ => false,
            };
            let shown = || match &is.owned {
                Some((schema, table, column)) => format!("{schema}.{table}.{column}"),
                None => "none".into(),
            };
            match fits || setting.renamed && is.owned.is_some() == (written.len() > 1) {
                true => None,
                false => differ("OWNED BY", shown(), written.join(".")),
            }
        }
        _ => None,
    }
}
